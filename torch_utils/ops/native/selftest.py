"""Compares the compiled operators with the reference on one device, derivatives included."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from torch_utils.ops.bias_act import bias_act, bias_act_reference
from torch_utils.ops.native.library import DTYPES, library_of
from torch_utils.ops.native.toolchain import OperatorsUnavailable
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d, upfirdn2d_reference

_LAYOUTS = (torch.contiguous_format, torch.channels_last)
_SHAPES = ((2, 3, 5, 7), (2, 16, 8, 8), (1, 40, 33, 17))
_SHIFTED_SHAPE = _SHAPES[1]  # also tried at addresses that are not aligned to 16 bytes
_ACTS = ("linear", "relu", "lrelu")
_ALPHA, _GAIN, _CLAMP = 0.2, 1.3, 1.5

# taps of setup_filter, up, down, padding
_GEOMETRIES = (
    ([1.0, 3.0, 3.0, 1.0], 1, 1, (2, 1, 2, 1)),
    ([1.0, 3.0, 3.0, 1.0], 2, 1, (3, 1, 2, 2)),
    ([1.0, 3.0, 3.0, 1.0], 1, 2, (1, 1, -1, 4)),
    ([float(i - 4) for i in range(12)], 1, 1, (6, 5, 5, 6)),
    ([float(i - 4) for i in range(12)], 2, 1, (6, 5, 7, 4)),
    ([float(i - 4) for i in range(12)], 1, 2, (5, 5, 9, 9)),
    ([1.0, 2.0, -4.0], 3, 4, (3, 3, 5, 1)),
)


def compare(device: torch.device) -> int:
    """Return how many results agree. Call `native.enable` for the device in mode native first.

    Raises OperatorsUnavailable: a result differs from the reference, or a kernel of the library was not launched.
    """
    before = library_of(device).launches()
    count = 0
    for count, (name, actual, expected) in enumerate(_cases(device), start=1):  # noqa: B007
        tolerance = 8 * torch.finfo(actual.dtype).eps * float(expected.abs().max().clamp(min=1))
        error = float((actual.double() - expected).abs().max())
        if not error <= tolerance:
            raise OperatorsUnavailable(f"{name} differs from the reference by {error:.3g}, over {tolerance:.3g}")
    idle = [name for name, launches in library_of(device).launches().items() if launches == before[name]]
    if idle:
        raise OperatorsUnavailable(f"the self-test did not launch {len(idle)} kernels, such as {idle[0]}")
    return count


def _cases(device: torch.device) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (name, result of the operator, result of the reference in float64)."""
    generator = torch.Generator().manual_seed(0)
    for shape, dtype, layout in itertools.product(_SHAPES, DTYPES, _LAYOUTS):
        x = torch.randn(shape, generator=generator).to(device, dtype, memory_format=layout)
        where = f"{dtype} {list(shape)} {layout}".replace("torch.", "")
        for act in _ACTS:
            yield from _named(f"bias_act {act} {where}", _bias_act_pair(x, act))
            if shape == _SHIFTED_SHAPE:
                yield from _named(f"bias_act {act} {where}, not aligned", _bias_act_pair(_shifted(x), act))
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

    def call(function: Callable[..., Tensor], x: Tensor, bias: Tensor, noise: Tensor, strength: Tensor) -> Tensor:
        return function(x, bias, 1, act, _ALPHA, _GAIN, _CLAMP, noise, strength)

    y = call(bias_act_reference, *wide)
    weight = _slope(y) * ((y.abs() - _CLAMP).abs() > 0.02)  # close to the clamp, rounding decides whether it applies
    return (
        derivatives(partial(call, bias_act), weight, weight, x, bias, noise, strength),
        derivatives(partial(call, bias_act_reference), weight, weight, *wide),
    )


def _upfirdn2d_pair(
    x: Tensor, f: Tensor, up: int, down: int, padding: tuple[int, int, int, int]
) -> tuple[list[Tensor], list[Tensor]]:
    def expected(x: Tensor) -> Tensor:
        return upfirdn2d_reference(x, f, (up, up), (down, down), padding, False, 1.5)

    weight, again = _slope(expected(x.double())), _slope(x)
    return (
        derivatives(lambda x: upfirdn2d(x, f, up, down, padding, gain=1.5), weight, again, x),
        derivatives(expected, weight, again, x.double()),
    )


def _slope(like: Tensor) -> Tensor:
    """Return numbers from -1 to 1 that every dtype represents exactly."""
    return torch.linspace(-1, 1, like.numel(), device=like.device).bfloat16().double().reshape(like.shape)


def _shifted(x: Tensor) -> Tensor:
    """Return a copy whose address is one element past an aligned one."""
    memory = x.new_empty(x.numel() + 1)[1:]
    return memory.as_strided(x.shape, x.stride(), memory.storage_offset()).copy_(x)


def derivatives(
    function: Callable[..., Tensor], weight: Tensor, again: Tensor, x: Tensor, *others: Tensor
) -> list[Tensor]:
    """Return the value, its gradient (cotangent `weight`), and the gradients of that (cotangent `again`)."""
    x, weight = x.detach().requires_grad_(), weight.detach().to(x.dtype)
    weight = (_shifted(weight) if x.storage_offset() else weight).requires_grad_()
    y = function(x, *others)
    (dx,) = torch.autograd.grad(y, x, weight, create_graph=True)
    return [y.detach(), dx.detach(), *torch.autograd.grad(dx, (weight, x), again.to(x.dtype), materialize_grads=True)]
