"""upfirdn2d and its relatives against the recorded cases, the definition written out, and identities."""

import golden_data
import numpy as np
import pytest
import torch
from golden_data import relative_error
from torch import Tensor

from torch_utils.ops.upfirdn2d import downsample2d, setup_filter, upfirdn2d, upsample2d

CONFIG, _, DATA = golden_data.load("upfirdn2d")
CASES = CONFIG["cases"]
X = torch.from_numpy(DATA["x"])
pytestmark = pytest.mark.usefixtures("implementation")


def recorded_filter(name: str | None) -> Tensor | None:
    return None if name is None else torch.from_numpy(DATA[f"filter:{name}"])


def by_definition(
    image: np.ndarray, f: np.ndarray, up: int, down: int, padding: tuple[int, int, int, int]
) -> np.ndarray:
    """The four steps, one after the other, for one channel."""
    x0, x1, y0, y1 = padding
    height, width = image.shape
    spread = np.zeros([height * up, width * up])
    spread[::up, ::up] = image
    padded = np.pad(spread, [(max(y0, 0), max(y1, 0)), (max(x0, 0), max(x1, 0))])
    padded = padded[max(-y0, 0) : padded.shape[0] - max(-y1, 0), max(-x0, 0) : padded.shape[1] - max(-x1, 0)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, f.shape)
    return (windows * f[::-1, ::-1]).sum(axis=(2, 3))[::down, ::down]


@pytest.mark.parametrize("index", range(len(CASES)))
def test_recorded_values_and_derivatives(index):
    case = dict(CASES[index])
    f = recorded_filter(case.pop("filter"))
    x = X.clone().requires_grad_()
    y = upfirdn2d(x, f, **case)
    (y * torch.from_numpy(DATA[f"case{index}:r"])).sum().backward()
    assert relative_error(y, DATA[f"case{index}:y"]) < 2e-6
    assert relative_error(x.grad, DATA[f"case{index}:dx"]) < 2e-6


def test_recorded_helpers():
    f, sym6 = recorded_filter("f1331"), recorded_filter("sym6")
    assert relative_error(upsample2d(X, f), DATA["upsample2d"]) < 2e-6
    assert relative_error(downsample2d(X, f), DATA["downsample2d"]) < 2e-6
    assert relative_error(upfirdn2d(X, f, padding=[2, 1, 2, 1]), DATA["filter2d"]) < 2e-6
    assert relative_error(upsample2d(X, sym6), DATA["upsample2d_sym6"]) < 2e-6
    padded = torch.nn.functional.pad(X, [8] * 4)
    down = downsample2d(padded, sym6, padding=-3, flip_filter=True)
    assert relative_error(down, DATA["downsample2d_sym6_pad-6_flip"]) < 2e-6


@pytest.mark.parametrize("up", [1, 2, 3])
@pytest.mark.parametrize("down", [1, 2])
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (3, 1, 2, 5), (-2, 1, 3, -1), (-8, 30, 30, -9), (-20, 40, 0, 0)])
def test_the_four_steps_written_out(up, down, padding):
    rng = np.random.default_rng(up * 10 + down)
    image, f = rng.standard_normal([7, 6]), rng.standard_normal([3, 2])
    expected = by_definition(image, f, up, down, padding)
    actual = upfirdn2d(torch.from_numpy(image)[None, None], torch.from_numpy(f), up, down, padding)
    np.testing.assert_allclose(actual[0, 0].numpy(), expected, atol=1e-12)


def test_a_separable_filter_equals_its_outer_product():
    taps = [1.0, 3.0, -2.0, 0.5, 4.0]
    arguments = {"up": [2, 1], "down": [1, 2], "padding": [3, 2, 1, 4], "gain": 1.5}
    separable = torch.tensor(taps) / sum(taps)
    full = separable.outer(separable)
    torch.testing.assert_close(upfirdn2d(X, separable, **arguments), upfirdn2d(X, full, **arguments))


@pytest.mark.parametrize("index", [1, 3, 6, 10])
def test_first_and_second_derivative(index):
    case = dict(CASES[index])
    f = recorded_filter(case.pop("filter")).double()
    x = X[:1, :2, :5, :4].double().requires_grad_()

    def apply(x: Tensor) -> Tensor:
        return upfirdn2d(x, f, **case).square()

    assert torch.autograd.gradcheck(apply, x)
    assert torch.autograd.gradgradcheck(apply, x)


def test_setup_filter():
    torch.testing.assert_close(setup_filter([1, 3, 3, 1]), recorded_filter("f1331"))
    assert setup_filter([1.0] * 8).shape == (8,) and setup_filter([1.0] * 7).shape == (7, 7)
