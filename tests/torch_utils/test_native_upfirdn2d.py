"""The compiled upfirdn2d, on the CPU by the code of the GPU kernels, against the reference in float64."""

import random
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.kernels import DTYPES
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d, upfirdn2d_reference

pytestmark = pytest.mark.usefixtures("compiled")


@dataclass(frozen=True)
class Geometry:
    shape: tuple[int, int, int, int]
    filter_shape: tuple[int, ...]
    up: tuple[int, int]
    down: tuple[int, int]
    padding: tuple[int, int, int, int]
    flip: bool
    gain: float


def random_geometry(rng: random.Random) -> Geometry:
    """Anything; every second one has the factors and taps that have kernels of their own."""
    while True:
        if rng.random() < 0.5:
            filter_shape: tuple[int, ...] = rng.choice([(4, 4), (12,)])
            factor = rng.choice([(1, 1), (2, 1), (1, 2)])
            up, down = (factor[0],) * 2, (factor[1],) * 2
        else:
            filter_shape = tuple(rng.choice([1, 2, 3, 4, 5, 12, 32]) for _ in range(rng.choice([1, 2])))
            up, down = ((rng.choice([1, 2, 3, 4, 7]), rng.choice([1, 2, 3, 4])) for _ in range(2))
        shape = rng.choice([1, 2, 5]), rng.choice([1, 3, 8, 33, 64]), rng.choice([1, 4, 8, 17, 40]), rng.randint(1, 40)
        x0, x1, y0, y1 = (rng.randint(-6, 14) for _ in range(4))
        if shape[3] * up[0] + x0 + x1 >= filter_shape[-1] and shape[2] * up[1] + y0 + y1 >= filter_shape[0]:
            return Geometry(shape, filter_shape, up, down, (x0, x1, y0, y1), rng.random() < 0.5, rng.choice([1, 4]))


def check(geometry: Geometry, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    """Value and gradient; every product is rounded once, so the error grows with the sum of their sizes."""
    x = torch.randn(geometry.shape).to(dtype).to(memory_format=memory_format).requires_grad_()
    f = torch.randn(geometry.filter_shape)
    settings = geometry.up, geometry.down, geometry.padding, geometry.flip, geometry.gain
    y = upfirdn2d(x, f, *settings)
    weight = torch.randn(y.shape).to(dtype)
    (dx,) = torch.autograd.grad(y, x, weight)
    results = []
    for sign in (lambda t: t, torch.abs):  # the second: the sums of the sizes
        wide = sign(x.detach().double()).requires_grad_()
        expected = upfirdn2d_reference(wide, sign(f.double()), *settings)
        results.append((expected.detach(), *torch.autograd.grad(expected, wide, sign(weight.double()))))
    eps, math_eps = torch.finfo(dtype).eps, torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    for actual, expected, size in zip((y.detach(), dx), *results, strict=True):
        assert actual.shape == expected.shape
        error = (actual.double() - expected).abs()
        assert (error <= eps * expected.abs() + 16 * math_eps * size + torch.finfo(dtype).tiny).all(), geometry


@pytest.mark.parametrize("part", range(20))
def test_random_geometries(part: int) -> None:
    rng = random.Random(part)
    torch.manual_seed(part)
    for number in range(25):
        layout = rng.choice([torch.contiguous_format, torch.channels_last])
        check(random_geometry(rng), DTYPES[number % len(DTYPES)], layout)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    ("shape", "filter_shape", "up", "down", "padding"),
    [
        ((2, 3, 150, 200), (4, 4), 1, 1, (2, 1, 2, 1)),  # several tiles
        ((2, 3, 150, 200), (12,), 2, 1, (6, 5, 6, 5)),
        ((2, 3, 150, 200), (12,), 1, 2, (-7, -7, 5, 5)),
        ((1, 96, 40, 24), (4, 4), 2, 1, (3, 1, 3, 1)),  # several tiles of channels
        ((1, 40, 40, 24), (4, 4), 1, 2, (1, 1, 1, 1)),
        ((40, 20, 4, 4), (4, 4), 1, 1, (2, 1, 2, 1)),  # several planes a tile
        ((1, 2, 9, 9), (32, 32), 4, 1, (40, 40, 40, 40)),
        ((1, 33, 70, 3), (32,), 1, 4, (40, 40, 40, 40)),
        ((1, 1, 1, 1), (4, 4), 1, 1, (900, 3, 3, 900)),
        ((1, 2, 5, 5), (1, 1), 256, 1, (0, 0, 0, 0)),
        ((1, 2, 600, 5), (3, 3), 1, 256, (3, 3, 3, 3)),
    ],
)
def test_chosen_geometries(shape, filter_shape, up, down, padding, dtype, memory_format) -> None:
    torch.manual_seed(0)
    check(Geometry(shape, filter_shape, (up, up), (down, down), padding, False, 1.0), dtype, memory_format)


def test_strided_and_unaligned_images() -> None:
    x, f = torch.randn(2, 4, 12, 20), setup_filter([1, 3, 3, 1])
    shifted = torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)
    for image in (x[:, :, ::2, 3:], x.transpose(2, 3), x[:, :1].expand(-1, 4, -1, -1), shifted, x[1:, 1:]):
        expected = upfirdn2d_reference(image, f, (2, 2), (1, 1), (2, 1, 2, 1), False, 1.0)
        torch.testing.assert_close(upfirdn2d(image, f, up=2, padding=[2, 1, 2, 1]), expected)


def test_no_filter_no_images_and_filters_too_large() -> None:
    x = torch.randn(2, 3, 6, 6)
    cropped = upfirdn2d(x, None, padding=[-1, -2])
    assert torch.equal(cropped, x[:, :, 2:-2, 1:-1])
    assert upfirdn2d(x[:0], setup_filter([1, 3, 3, 1]), down=2, padding=1).shape == (0, 3, 3, 3)
    long = torch.randn(40)
    expected = upfirdn2d_reference(x, long, (1, 1), (1, 1), (20, 20, 20, 20), False, 1.0)
    assert torch.equal(upfirdn2d(x, long, padding=20), expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_registration(memory_format: torch.memory_format) -> None:
    x = torch.randn(2, 3, 6, 5).to(memory_format=memory_format).requires_grad_()
    settings = ([2, 1], [1, 2], [3, 1, 2, 4], True, 1.5)
    torch.library.opcheck(torch.ops.styleformer.upfirdn2d.default, (x, setup_filter([1, 3, 3, 1]), *settings))


def test_compiled_code_passes_through() -> None:
    x, bias, f = torch.randn(2, 3, 6, 6, requires_grad=True), torch.randn(3), setup_filter([1, 3, 3, 1])

    def apply(x: Tensor) -> Tensor:
        return upfirdn2d(bias_act(x * 2, bias, act="lrelu", clamp=1.0), f, down=2, padding=1).square().sum()

    whole = torch.compile(apply, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(whole(x), x), torch.autograd.grad(apply(x), x))
