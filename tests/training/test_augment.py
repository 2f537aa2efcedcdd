"""The augmentation pipe against recordings; probabilities, distributions, sizes and derivatives."""

import math
from collections.abc import Collection

import golden_data
import numpy as np
import pytest
import torch
from golden_data import relative_error
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from training.augment.pipe import AMOUNTS, PIPES, AugmentPipe, band_filters
from training.augment.transforms import compose, warp

CONFIG, _, ARRAYS = golden_data.load("augment")
DATA = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}


class AtPercentile(AugmentPipe):
    """Every amount at a percentile in place of random ones, as recorded."""

    def __init__(self, pipe: str | Collection[str], percentile: float) -> None:
        super().__init__(pipe)
        self.percentile = percentile

    def _random_numbers(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        sizes = {name: [len(images), amount.columns] for name, amount in AMOUNTS.items()}
        numbers = [images.new_full(size, self.number(name)) for name, size in sizes.items()]
        return numbers, super()._random_numbers(images)[1]

    def _center(self, images: Tensor) -> Tensor:
        return images.new_full([len(images), 2], self.percentile)

    def number(self, name: str) -> float:
        if name == "rotate_again":  # the recordings have the first rotation only
            return 0.5
        at = self.percentile if name == "noise" else 2 * self.percentile - 1  # the percentile is that of its magnitude
        normal = torch.erfinv(torch.tensor(at, dtype=torch.float64)).item()  # without the factor sqrt(2), as recorded
        return {"normal": normal, "certain": 1.0}.get(AMOUNTS[name].distribution, self.percentile)


def single(name: str, percentile: float | None = None) -> AugmentPipe:
    return AugmentPipe([name]) if percentile is None else AtPercentile([name], percentile)


@pytest.mark.parametrize("percentile", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("name", ["bgc", "bgcfc", "bgcfnc"])
def test_recorded_pipes(name, percentile, monkeypatch):
    pipe = AtPercentile(CONFIG["specs"][name], percentile)
    monkeypatch.setattr(torch, "randn_like", lambda images: DATA["noise"])
    assert relative_error(pipe(DATA["images"], 1.0), DATA[f"{name}_q{percentile}"]) < 1e-5


@pytest.mark.parametrize("name", CONFIG["singles"])
def test_recorded_single_transforms(name):
    images = DATA["images"][:1] if name == "imgfilter" else DATA["images_small"]
    assert relative_error(single(name, 0.8)(images, 1.0), DATA[f"single_{name}_q0.8"]) < 1e-5


def test_recorded_grey_images_and_both_derivatives():
    images = DATA["images_small"].clone().requires_grad_()
    y = AtPercentile("bgc", 0.8)(images, 1.0)
    assert relative_error(AtPercentile("bgc", 0.8)(DATA["images_gray"], 1.0), DATA["bgc_gray_q0.8"]) < 1e-5
    (first,) = torch.autograd.grad(y.square().sum(), images, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), images)
    assert relative_error(y, DATA["bgc_small_q0.8"]) < 1e-5
    assert relative_error(first, DATA["bgc_small_q0.8_dsq"]) < 1e-5
    assert relative_error(second, DATA["bgc_small_q0.8_d2"]) < 1e-5


def test_recorded_filters():
    assert relative_error(AugmentPipe().geometry_filter, DATA["Hz_geom"]) < 1e-6
    np.testing.assert_allclose(band_filters(), ARRAYS["Hz_fbank"], atol=1e-7)
    impulse = np.eye(43)[21]
    np.testing.assert_allclose(band_filters().sum(axis=0), impulse, atol=1e-12)


def test_named_pipes_are_made_of_the_published_groups():
    names = {pipe: set(transforms) for pipe, transforms in PIPES.items()}
    assert names["bgc"] == set(CONFIG["specs"]["bgc"]) and names["bgcfnc"] == set(CONFIG["specs"]["bgcfnc"])
    assert names["bg"] == names["blit"] | names["geom"]
    assert names["bgcf"] == names["bgc"] | names["filter"]
    assert names["bgcfn"] == names["bgcf"] | names["noise"]
    assert names["blit"] == {"xflip", "rotate90", "xint"} and names["cutout"] == {"cutout"}
    assert names["r3"] == names["bgc"] | names["cutout"]


@pytest.mark.parametrize("name", PIPES)
def test_at_p_zero_images_pass(name):
    images = torch.rand(2, 3, 24, 24) * 2 - 1
    pipe = AugmentPipe(name)
    assert pipe(images, 0) is images
    assert pipe(images, 0.0) is images
    torch.testing.assert_close(pipe(images, torch.tensor(0.0)), images, atol=1e-5, rtol=0)


# The share of images that a transform changes with probability p, where that is not p: some amounts are the identity.
SHARES = {
    "xflip": lambda p: p / 2,
    "rotate90": lambda p: p * 3 / 4,
    "xint": lambda p: p * 3 / 4,  # a whole shift of 8 pixels is 0 half the time, along both axes a quarter
    "lumaflip": lambda p: p / 2,
    "imgfilter": lambda p: 1 - (1 - p) ** 4,  # a gate for each of four bands
}


@pytest.mark.parametrize("name", PIPES["bgcfnc"])
def test_the_share_of_changed_images_follows_p(name, p=0.3):
    torch.manual_seed(0)
    count, channels = 1500, 3 if name in ("hue", "saturation") else 1
    images = torch.rand(1, channels, 8, 8).expand(count, -1, -1, -1) * 2 - 1
    with torch.no_grad():
        changed = (single(name)(images, torch.tensor(p)) - images).abs().amax(dim=(1, 2, 3)) > 1e-4
    expected = SHARES.get(name, lambda p: p)(p)
    assert abs(changed.float().mean().item() - expected) < 4.5 * math.sqrt(expected * (1 - expected) / count)


def test_colours_of_r3_change_half_as_often(p=0.6):
    torch.manual_seed(0)
    amounts = AugmentPipe("r3")._draw(torch.zeros(4000, 3, 8, 8), torch.tensor(p))
    shares = {name: (amounts[name] != 0).float().mean().item() for name in ("scale", "brightness", "hue", "cutout")}
    assert shares == pytest.approx({"scale": p, "brightness": p / 2, "hue": p / 2, "cutout": p}, abs=0.03)


# Standard deviations of the amounts at p = 1; those of geometry are negated where the map is inverted.
NORMAL = {
    "scale": 0.2,
    "aniso": 0.2,
    "xfrac": 0.125,
    "brightness": 0.2,
    "contrast": 0.5,
    "saturation": 1.0,
    "noise": 0.1,
}
UNIFORM = {"xint": 0.125, "rotate": math.pi, "rotate_again": math.pi, "hue": math.pi}  # bounds


def test_spread_of_the_amounts():
    torch.manual_seed(0)
    amounts = AugmentPipe("bgcfnc")._draw(torch.zeros(4000, 3, 8, 8), 1.0)
    for name, std in NORMAL.items():
        normal = torch.distributions.Normal(0, std)
        shares = [(amounts[name] < normal.icdf(torch.tensor(q))).float().mean().item() for q in (0.1, 0.5, 0.9)]
        assert shares == pytest.approx([0.1, 0.5, 0.9], abs=0.035), name
    for name, bound in UNIFORM.items():
        shares = [(amounts[name] < (2 * q - 1) * bound).float().mean().item() for q in (0, 0.1, 0.5, 0.9, 1)]
        assert shares == pytest.approx([0, 0.1, 0.5, 0.9, 1], abs=0.035), name
    for name, values in {"xflip": (-1, 1), "lumaflip": (-1, 1), "rotate90": (0, 0.5, 1, 1.5)}.items():
        factor = math.pi if name == "rotate90" else 1
        shares = [(amounts[name] - value * factor).abs().lt(1e-6).float().mean().item() for value in values]
        assert shares == pytest.approx([1 / len(values)] * len(values), abs=0.035), name


def read_maps(pipe: AugmentPipe, size: int = 16, count: int = 300, p: float = 1.0) -> tuple[Tensor, Tensor]:
    """The inverse maps a pipe applied, read off images whose values are their pixels' coordinates."""
    axis = torch.arange(size) - (size - 1) / 2
    ramps = torch.stack(torch.meshgrid(axis, axis, indexing="xy")).expand(count, -1, -1, -1)  # x, y
    with torch.no_grad():
        moved = pipe(ramps, p)[:, :, size // 2 - 1 : size // 2 + 1, size // 2 - 1 : size // 2 + 1]
    by_x, by_y = moved.diff(dim=3).mean(dim=(2, 3)), moved.diff(dim=2).mean(dim=(2, 3))
    return torch.stack([by_x, by_y], dim=2), moved.mean(dim=(2, 3))


def test_the_two_rotations_around_the_stretch_have_rarer_gates_of_their_own():
    torch.manual_seed(0)
    p, count = 0.5, 800
    linear, _ = read_maps(AugmentPipe(["rotate", "aniso"]), count=count, p=p)
    rows, columns = (linear[:, 0] * linear[:, 1]).sum(dim=1), (linear[:, :, 0] * linear[:, :, 1]).sum(dim=1)
    for skew in (rows, columns):  # rotation @ stretch has orthogonal columns, stretch @ rotation orthogonal rows
        share = (skew.abs() > 2e-3).float().mean().item()
        expected = p * (1 - math.sqrt(1 - p))  # of the stretched ones
        assert abs(share - expected) < 4.5 * math.sqrt(expected * (1 - expected) / count)


def test_images_that_are_not_square():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 40), indexing="ij")
    images = torch.stack([x + 0.2 * y, x * y - y])[None]
    inner = (..., slice(9, -9), slice(9, -9))
    close = {"atol": 0.015, "rtol": 0.0}  # a quarter of a pixel: sym6 is not quite symmetric, mirroring shifts a little
    torch.testing.assert_close(single("xflip", 0.8)(images, 1.0)[inner], images.flip(3)[inner], **close)
    torch.testing.assert_close(single("rotate90", 0.6)(images, 1.0)[inner], images.flip([2, 3])[inner], **close)
    turned = single("rotate90", 0.3)(images, 1.0)[:, :, :, 4:-4]
    torch.testing.assert_close(turned[inner], images[:, :, :, 4:-4].rot90(1, [2, 3])[inner], **close)
    shifted = single("xint", 0.8)(images, 1.0)  # 0.6 * 0.125 of 40 and of 32 pixels, rounded
    torch.testing.assert_close(shifted[:, :, 2:, 3:], images[:, :, :-2, :-3], atol=2e-5, rtol=0)
    blackened = single("cutout", 0.5)(torch.ones(1, 1, 16, 24), 1.0)
    assert (blackened == 0).sum() == 8 * 12
    assert AugmentPipe("bgcfnc")(torch.rand(2, 3, 16, 24), 0.9).shape == (2, 3, 16, 24)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 6), (21, 22), (2, 40)])
def test_small_images_can_be_filtered(height, width):
    images = torch.rand(2, 3, height, width) * 2 - 1
    filtered = single("imgfilter", 0.8)(images, 1.0)
    assert filtered.shape == images.shape and filtered.isfinite().all()
    kernel = np.array(filter_gains(0.8)) @ band_filters()
    padded = np.pad(images.numpy(), [(0, 0), (0, 0), (21, 21), (21, 21)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, [43, 43], axis=(2, 3))
    expected = np.einsum("nchwij,i,j->nchw", windows, kernel, kernel)
    np.testing.assert_allclose(filtered.numpy(), expected, atol=2e-5)


def filter_gains(percentile: float) -> list[float]:
    """The gains of the bands at a percentile, written out."""
    normal = torch.erfinv(torch.tensor(2 * percentile - 1)).item()
    power, gains = np.array([10, 1, 1, 1]) / 13, np.ones(4)
    for band in range(4):
        change = np.ones(4)
        change[band] = 2**normal
        gains *= change / math.sqrt((power * change**2).sum())
    return gains.tolist()


@pytest.mark.parametrize("channels", [1, 3])
def test_second_derivative_of_the_whole_pipe(channels):
    torch.manual_seed(0)
    pipe = AtPercentile(CONFIG["specs"]["bgcfc"], 0.7).double()
    images = torch.rand(1, channels, 5, 6, dtype=torch.float64, requires_grad=True)

    def apply(images: Tensor) -> Tensor:
        return pipe(images, 1.0).pow(3)

    assert torch.autograd.gradcheck(apply, images, fast_mode=True)
    assert torch.autograd.gradgradcheck(apply, images, fast_mode=True)


def test_no_step_needs_a_value_from_the_device(monkeypatch):
    pipe = AugmentPipe("bgcfnc")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # otherwise values are read on the CPU
    with FakeTensorMode(allow_non_fake_inputs=True):  # tensors without values: reading one raises
        y = pipe(torch.rand(4, 3, 16, 16), torch.rand([]))
    assert y.shape == (4, 3, 16, 16)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_is_never_waited_for_and_agrees():
    pipe, images, p = AugmentPipe("bgcfnc").cuda(), DATA["images"].cuda().requires_grad_(), torch.tensor(0.7).cuda()
    pipe(images, p).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        pipe(images, p).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        bgc = AtPercentile("bgc", 0.8).cuda()(images, 1.0)
    assert relative_error(bgc.cpu(), DATA["bgc_q0.8"]) < 1e-4


def test_half_precision_and_autocast_are_computed_in_float32():
    pipe = AtPercentile(CONFIG["specs"]["bgcfc"], 0.8)
    exact = pipe(DATA["images"].bfloat16().float(), 1.0)
    half = pipe(DATA["images"].bfloat16(), 1.0)
    assert half.dtype == torch.bfloat16 and torch.equal(half, exact.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pipe(DATA["images"].bfloat16().float(), 1.0), exact)


@pytest.mark.parametrize("shape", [(9, 3, 16, 16), (4, 1, 12, 20), (1, 3, 8, 8), (2, 3, 32, 24)])
@pytest.mark.parametrize("size", [0.2, 1.0, 3.0])  # of the moves
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_bounded_margin_changes_no_bit(shape, size, memory_format, monkeypatch):
    """Not of the images, nor of their derivatives; nor how these lie in memory, as sums over them follow from that."""
    torch.manual_seed(0)
    f, count = AugmentPipe().geometry_filter, shape[0]
    factors, angle = torch.exp2(torch.randn(count, 2) * 0.3 * size), torch.randn(count, 1) * size
    shift = torch.randn(count, 2) * size * shape[2] / 4
    none, results = torch.zeros(count, 1), []
    inverse = compose(1 - none, none, torch.zeros(count, 2), none, factors, angle, shift)  # shift, rotate, scale
    for is_bounded in (True, False):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda is_bounded=is_bounded: not is_bounded)
        images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        images = images.contiguous(memory_format=memory_format).requires_grad_()
        moved = warp(images, inverse, f)
        (first,) = torch.autograd.grad(moved.square().sum(), images, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), images)
        results.append((moved, first, second))
    for bounded, whole in zip(*results, strict=True):
        assert torch.equal(bounded, whole)
        assert bounded.stride() == whole.stride()
