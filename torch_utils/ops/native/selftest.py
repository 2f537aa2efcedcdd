"""Compares the compiled operators with the reference on one device, derivatives included, and times both."""

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from torch_utils.ops import native
from torch_utils.ops.bias_act import bias_act, bias_act_reference
from torch_utils.ops.native.library import DTYPES
from torch_utils.ops.native.toolchain import OperatorsUnavailable
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d, upfirdn2d_reference

_LAYOUTS = (torch.contiguous_format, torch.channels_last)
_SHAPES = ((2, 3, 5, 7), (2, 16, 8, 8), (1, 40, 33, 17))
_ACTS = ("linear", "lrelu", "swish")
_TIMED, _TIMED_CPU = (32, 256, 64, 64), (2, 8, 16, 16)  # pictures, channels, height, width of what is timed
_TIMED_KINDS = ((torch.float32, torch.contiguous_format), (torch.float16, torch.channels_last))  # of the discriminator
_ALPHA, _GAIN, _CLAMP = 0.2, 1.3, 1.5

# taps of setup_filter, up, down, padding
_GEOMETRIES = (
    ([1.0, 3.0, 3.0, 1.0], 1, 1, (2, 1, 2, 1)),
    ([1.0, 3.0, 3.0, 1.0], 2, 1, (3, 1, 2, 2)),
    ([1.0, 3.0, 3.0, 1.0], 1, 2, (1, 1, -1, 4)),
    ([float(i - 4) for i in range(12)], 2, 1, (6, 5, 7, 4)),
    ([float(i - 4) for i in range(12)], 1, 2, (5, 5, 9, 9)),
    ([1.0, 2.0, -4.0], 3, 4, (3, 3, 5, 1)),
)


def compare(device: torch.device) -> int:
    """Return how many cases agreed; OperatorsUnavailable names the first that does not.

    The operators have to be loaded and the mode native.
    """
    count = 0
    for count, (name, actual, expected) in enumerate(_cases(device), start=1):  # noqa: B007
        tolerance = 8 * torch.finfo(actual.dtype).eps * float(expected.abs().max().clamp(min=1))
        error = float((actual.double() - expected).abs().max())
        if not error <= tolerance:
            raise OperatorsUnavailable(f"{name} differs from the reference by {error:.3g}, over {tolerance:.3g}")
    return count


def faster(device: torch.device, with_compiled: bool) -> list[str]:
    """Return the operators that take less time than the reference, forward and backward, at sizes of training.

    Those that do so inside of compiled code too are there a second time, with native.COMPILED at the end.
    """
    names = []
    for name in ("bias_act", "upfirdn2d"):
        if math.prod(_time_ratios(name, False, device)) < 1:
            names.append(name)
        with contextlib.suppress(Exception):  # where nothing can be compiled, nobody will ask
            if with_compiled and math.prod(_time_ratios(name, True, device)) < 1:
                names.append(name + native.COMPILED)
    return names


def _time_ratios(name: str, is_compiled: bool, device: torch.device) -> Iterator[float]:
    """Time of an operator by that of the reference for each kind of tensor; compiled for one, as it takes so long."""
    shape = _TIMED if device.type == "cuda" else _TIMED_CPU
    for dtype, layout in _TIMED_KINDS[-1:] if is_compiled else _TIMED_KINDS:
        x = torch.randn(shape, device=device).to(dtype, memory_format=layout).requires_grad_()
        scale = torch.randn(1, shape[1], 1, 1, device=device, dtype=dtype)
        bias = torch.randn(shape[1], device=device, dtype=dtype, requires_grad=True)
        f = setup_filter([1.0, 3.0, 3.0, 1.0]).to(device)
        function = partial(_scaled_bias_act, bias=bias) if name == "bias_act" else partial(_scaled_upfirdn2d, f=f)
        times = []
        for mode in ("native", "reference"):
            native.set_mode(mode)
            torch.compiler.reset()
            run = torch.compile(function) if is_compiled else function
            times.append(milliseconds(partial(_differentiate, run, x, scale, bias), device, least_sec=0.05))
        yield times[0] / times[1]


def _scaled_bias_act(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return bias_act(x * scale, bias, act="lrelu", clamp=256.0)  # a compiler can fuse the factor, as demodulation is


def _scaled_upfirdn2d(x: Tensor, scale: Tensor, f: Tensor) -> Tensor:
    return upfirdn2d(x * scale, f, padding=[2, 1, 2, 1])


def _differentiate(run: Callable[[Tensor, Tensor], Tensor], x: Tensor, scale: Tensor, bias: Tensor) -> None:
    torch.autograd.grad(run(x, scale), (x, bias), x.detach(), allow_unused=True)


def milliseconds(function: Callable[[], object], device: torch.device, least_sec: float = 0.2) -> float:
    """Return the mean time of a call after three unmeasured ones."""
    for _ in range(3):
        function()
    calls, start = 0, _now(device)
    while (elapsed := _now(device) - start) < least_sec:
        for _ in range(10):
            function()
        calls += 10
    return elapsed / calls * 1000


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _cases(device: torch.device) -> Iterator[tuple[str, Tensor, Tensor]]:
    """What it is, the operator's tensor, the reference's in float64."""
    generator = torch.Generator().manual_seed(0)
    for shape, dtype, layout in itertools.product(_SHAPES, DTYPES, _LAYOUTS):
        x = torch.randn(shape, generator=generator).to(device, dtype, memory_format=layout)
        where = f"{dtype} {list(shape)} {layout}".replace("torch.", "")
        for act in _ACTS:
            yield from _named(f"bias_act {act} {where}", _bias_act_pair(x, act))
        for taps, up, down, padding in _GEOMETRIES:
            name = f"upfirdn2d {len(taps)} taps up {up} down {down} {where}"
            yield from _named(name, _upfirdn2d_pair(x, setup_filter(taps).to(device), up, down, padding))


def _named(name: str, pair: tuple[list[Tensor], list[Tensor]]) -> Iterator[tuple[str, Tensor, Tensor]]:
    for order, (actual, expected) in enumerate(zip(*pair, strict=True)):
        yield f"{name} {('value', 'gradient', 'second derivative')[min(order, 2)]}", actual, expected


def _bias_act_pair(x: Tensor, act: str) -> tuple[list[Tensor], list[Tensor]]:
    bias = torch.linspace(-1, 1, x.shape[1], device=x.device, dtype=x.dtype)
    noise = x[:1, :1].flip(2).contiguous()
    strength = torch.tensor(0.5, device=x.device, dtype=x.dtype)
    wide = x.double(), bias.double(), noise.double(), strength.double()

    def value(x: Tensor, bias: Tensor, noise: Tensor, strength: Tensor) -> Tensor:
        return bias_act(x, bias, 1, act, _ALPHA, _GAIN, _CLAMP, noise, strength)

    def expected(x: Tensor, bias: Tensor, noise: Tensor, strength: Tensor) -> Tensor:
        return bias_act_reference(x, bias, 1, act, _ALPHA, _GAIN, _CLAMP, noise, strength)

    y = expected(*wide)
    weight = _slope(y) * ((y.abs() - _CLAMP).abs() > 0.02)  # at the bend, rounding decides which side a result is on
    return (
        _derivatives(value, weight, weight, x, bias, noise, strength),
        _derivatives(expected, weight, weight, *wide),
    )


def _upfirdn2d_pair(
    x: Tensor, f: Tensor, up: int, down: int, padding: tuple[int, int, int, int]
) -> tuple[list[Tensor], list[Tensor]]:
    def expected(x: Tensor) -> Tensor:
        return upfirdn2d_reference(x, f, (up, up), (down, down), padding, False, 1.5)

    weight, again = _slope(expected(x.double())), _slope(x)
    return (
        _derivatives(lambda x: upfirdn2d(x, f, up, down, padding, gain=1.5), weight, again, x),
        _derivatives(expected, weight, again, x.double()),
    )


def _slope(like: Tensor) -> Tensor:
    """-1 .. 1, in numbers that every dtype can hold."""
    return torch.linspace(-1, 1, like.numel(), device=like.device).bfloat16().double().reshape(like.shape)


def _derivatives(
    function: Callable[..., Tensor], weight: Tensor, again: Tensor, x: Tensor, *others: Tensor
) -> list[Tensor]:
    """The value, its gradient for `weight` and the gradients of that for `again`."""
    x, weight = x.detach().requires_grad_(), weight.to(x.dtype).requires_grad_()
    y = function(x, *others)
    (dx,) = torch.autograd.grad(y, x, weight, create_graph=True)
    return [y.detach(), dx.detach(), *torch.autograd.grad(dx, (weight, x), again.to(x.dtype), materialize_grads=True)]
