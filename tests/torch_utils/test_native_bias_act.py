"""The compiled bias_act, on the CPU by the code of the GPU kernels, against formulas in float64."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from torch_utils.ops.bias_act import ACTIVATIONS, bias_act, bias_act_reference
from torch_utils.ops.kernels import DTYPES
from torch_utils.ops.native.bias_act_op import STRAIGHT
from torch_utils.ops.native.selftest import derivatives

pytestmark = pytest.mark.usefixtures("compiled")

ALPHA, GAIN = float(np.float32(0.2)), float(np.float32(1.3))  # what float32 holds of them


def true_values(act: str, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An activation and its derivative, from their definitions; the second derivative is 0."""
    one = np.ones_like(v)
    return {
        "linear": (v, one),
        "relu": (np.maximum(v, 0), one * (v > 0)),
        "lrelu": (np.where(v > 0, v, v * ALPHA), np.where(v > 0, one, one * ALPHA)),
    }[act]


def extended(x: Tensor) -> np.ndarray:
    return x.double().numpy().astype(np.longdouble)


def units_off(actual: Tensor, expected: np.ndarray, least: float) -> float:
    """The largest error in units in the last place of the dtype, those of numbers below `least` taken as its."""
    place = np.frexp(np.maximum(np.abs(expected), least).astype(np.float64))[1] - 1
    return float((np.abs(extended(actual) - expected) / np.ldexp(torch.finfo(actual.dtype).eps, place)).max())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("act", STRAIGHT)
def test_values_and_derivatives(act: str, dtype: torch.dtype) -> None:
    """float16 and bfloat16 are right but for the last rounding, float32 and float64 within 2 units, also where the result
    is small."""
    torch.manual_seed(0)
    x, bias = (torch.randn(2, 8, 40, 40).double() * 3).to(dtype), torch.randn(8).to(dtype)
    math = torch.float64 if dtype == torch.float64 else torch.float32
    weight, again = torch.randn(x.shape).to(dtype), torch.randn(x.shape).to(dtype)
    actual = derivatives(lambda x: bias_act(x, bias, act=act, alpha=ALPHA, gain=GAIN), weight, again, x)
    v = extended(x.to(math) + bias.to(math).reshape(1, -1, 1, 1))
    value, first = true_values(act, v)
    w, a = extended(weight), extended(again)
    expected = [value * GAIN, first * GAIN * w, first * GAIN * a, 0 * v]
    is_half = dtype in (torch.float16, torch.bfloat16)
    for number, (one, other) in enumerate(zip(actual, expected, strict=True)):
        least = 2.0**-14 if is_half else 2.0**-100
        assert units_off(one, other, least) <= (1 if is_half else 2), f"result {number}"


LAYOUTS = {
    "contiguous": ((2, 8, 4, 6), 1, lambda x: x),
    "channels last": ((2, 8, 4, 6), 1, lambda x: x.to(memory_format=torch.channels_last)),
    "odd sizes": ((3, 5, 7, 3), 1, lambda x: x),
    "odd channels last": ((3, 5, 7, 3), 1, lambda x: x.to(memory_format=torch.channels_last)),
    "tokens": ((2, 12, 16), 2, lambda x: x),
    "odd tokens": ((2, 12, 7), 2, lambda x: x),
    "matrix": ((5, 24), 1, lambda x: x),
    "one channel": ((4, 1, 8, 8), 1, lambda x: x),
    "tokens behind channels": ((2, 16, 12), 2, lambda x: x.transpose(1, 2).contiguous().transpose(1, 2)),
    "batch innermost": ((8, 3, 4), 1, lambda x: x.permute(1, 2, 0).contiguous().permute(2, 0, 1)),
    "every other column": ((2, 8, 4, 6), 1, lambda x: x.repeat_interleave(2, 3)[..., ::2]),
    "not aligned": ((2, 8, 4, 6), 1, lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)),
    "long": ((3, 8, 700), 1, lambda x: x),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layouts_with_bias_noise_and_clamp(name: str, dtype: torch.dtype) -> None:
    shape, dim, laid_out = LAYOUTS[name]
    generator = torch.Generator().manual_seed(1)

    def numbers(*size: int) -> Tensor:  # multiples of 1/16: their sums are exact, and none lies at the limit
        return (torch.randint(-40, 40, size, generator=generator) / 16).to(dtype)

    channels = shape[dim]
    noise_shape = [1 if i == dim else size for i, size in enumerate(shape)]
    for act, batch, with_bias, with_noise in itertools.product(("linear", "lrelu"), (1, shape[0]), (0, 1), (0, 1)):
        x, bias, noise = numbers(*shape), numbers(channels), numbers(batch, *noise_shape[1:])
        strength = torch.tensor(0.5, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
        arguments = (bias if with_bias else None, dim, act, 0.5, 1.5, 1.6875 + 1 / 64)
        added = (noise, strength) if with_noise else (None, None)
        wide = [None if t is None else t.double() for t in (arguments[0], *added)]
        weight, again = numbers(*shape), numbers(*shape)
        actual = derivatives(lambda x, f=arguments, n=added: bias_act(x, *f, *n), weight, again, laid_out(x))
        expected = derivatives(
            lambda x, f=arguments, w=wide: bias_act_reference(x, w[0], *f[1:], w[1], w[2]),
            weight.double(), again.double(), x.double(),
        )  # fmt: skip
        assert actual[0].stride() == torch.empty_like(laid_out(x)).stride()
        for one, other in zip(actual, expected, strict=True):
            assert units_off(one, extended(other), 1.0) <= 8, (act, batch, with_bias, with_noise)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_empty_tensors(dtype: torch.dtype) -> None:
    for shape in ((0, 4, 3, 3), (2, 4, 0, 3), (0, 4)):
        x = torch.zeros(shape, dtype=dtype, requires_grad=True)
        bias = torch.zeros(4, dtype=dtype, requires_grad=True)
        y = bias_act(x, bias, act="lrelu")
        assert y.shape == shape
        y.sum().backward()
        assert bias.grad.tolist() == [0, 0, 0, 0]


def test_tensors_on_other_devices_are_refused() -> None:
    x, away = torch.ones(2, 3, 4), {"device": "meta"}  # their addresses lead nowhere
    with pytest.raises(ValueError, match="one tensor is on meta, another on cpu"):
        bias_act(x, torch.zeros(3, **away))
    with pytest.raises(ValueError, match="on meta"):
        bias_act(x, noise=torch.zeros(2, 1, 4, **away), noise_strength=torch.tensor(1.0))


def test_infinities_and_nan_as_in_the_reference() -> None:
    x = torch.tensor([[float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e38]])
    for act, clamp in itertools.product(ACTIVATIONS, (None, 2.0)):
        arguments = (None, 1, act, 0.2, 1.5, clamp, None, None)
        torch.testing.assert_close(bias_act(x, *arguments), bias_act_reference(x, *arguments), equal_nan=True)
        grads = []
        for function in (bias_act, bias_act_reference):
            leaf = x[:, 1:].clone().requires_grad_()
            function(leaf, *arguments).backward(torch.full_like(leaf, 3.0))
            grads.append(leaf.grad)
        torch.testing.assert_close(*grads, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "clamp", [256 * 0.5**0.5, 180.6, 100.06, 1.3, 0.1], ids=str
)  # float16, bfloat16 round up and down
@pytest.mark.parametrize(("act", "below"), [("linear", 1.0), ("relu", 0.0), ("lrelu", 0.2)])
def test_a_saturated_result_passes_no_gradient_however_its_limit_is_rounded(act, below, clamp, dtype) -> None:
    """The result is stored as the limit in its dtype, which may lie below the limit; at 8 elements packs of 16 bytes."""
    x = (torch.tensor([2, -12, 0.5, -0.5] * 2) * clamp).to(dtype)
    weight, again = torch.full_like(x, 2.0), torch.full_like(x, 3.0)
    slope = torch.tensor([0, 0 if below else below, 1, below] * 2).to(dtype)
    for part in (x, x[:3]):
        y, first, second, of_x = derivatives(
            lambda x: bias_act(x, None, 0, act, 0.2, 1.0, clamp), weight[: len(part)], again[: len(part)], part
        )
        assert y[0] == torch.tensor(clamp).to(dtype)
        torch.testing.assert_close(first, 2 * slope[: len(part)])
        torch.testing.assert_close(second, 3 * slope[: len(part)])
        assert not of_x.any()


@pytest.mark.parametrize("act", ["linear", "lrelu"])
@pytest.mark.parametrize("clamp", [None, 1.2])
def test_registration(act: str, clamp: float | None) -> None:
    ops = torch.ops.styleformer
    x = torch.randn(2, 3, 4, 2, requires_grad=True)
    added = (torch.randn(3, requires_grad=True), torch.randn(2, 1, 4, 2), torch.tensor(0.3, requires_grad=True))
    settings = (1, act, 0.2, 1.3, clamp)
    torch.library.opcheck(ops.bias_act.default, (x, *added, *settings))
    torch.library.opcheck(ops.bias_act_grad.default, (torch.randn(x.shape, requires_grad=True), x, *settings))


def test_lrelu_with_bias_noise_gain_and_clamp_stores_its_result_only() -> None:
    x, bias = torch.randn(8, 16, requires_grad=True), torch.randn(16, requires_grad=True)
    stored = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: stored.append(t.data_ptr()) or t, lambda t: t):
        y = bias_act(x, bias, act="lrelu", clamp=1.0)
        z = bias_act(x, bias, act="linear", gain=2.0)
    assert stored == [y.data_ptr()]
    (y + z).sum().backward()
