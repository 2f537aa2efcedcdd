"""Compares the compiled operators with the reference on one device, derivatives included."""

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.bias_act_reference import bias_act_reference
from torch_utils.ops.native.library import DTYPES, library_of
from torch_utils.ops.native.toolchain import OperatorsUnavailable
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d, upfirdn2d_reference

_LAYOUTS = (torch.contiguous_format, torch.channels_last)
_SHAPES = ((2, 3, 5, 7), (2, 16, 8, 8), (1, 40, 33, 17))
_SHIFTED_SHAPE = _SHAPES[1]  # also tried at addresses that allow no access of 16 bytes
_ACTS = ("linear", "lrelu", "swish")
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
    """Return how many cases agreed; OperatorsUnavailable names the first that does not, or kernels that none has run.

    The operators have to be loaded and the mode native.
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
        raise OperatorsUnavailable(f"the self-test has not run {len(idle)} kernels, among them {idle[0]}")
    return count


def _cases(device: torch.device) -> Iterator[tuple[str, Tensor, Tensor]]:
    """What it is, the operator's tensor, the reference's in float64."""
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


def _shifted(x: Tensor) -> Tensor:
    """The same numbers in the same order, an element further on in memory."""
    memory = x.new_empty(x.numel() + 1)[1:]
    return memory.as_strided(x.shape, x.stride(), memory.storage_offset()).copy_(x)


def _derivatives(
    function: Callable[..., Tensor], weight: Tensor, again: Tensor, x: Tensor, *others: Tensor
) -> list[Tensor]:
    """The value, its gradient for `weight` and the gradients of that for `again`."""
    x, weight = x.detach().requires_grad_(), weight.to(x.dtype)
    weight = (_shifted(weight) if x.storage_offset() else weight).requires_grad_()
    y = function(x, *others)
    (dx,) = torch.autograd.grad(y, x, weight, create_graph=True)
    return [y.detach(), dx.detach(), *torch.autograd.grad(dx, (weight, x), again.to(x.dtype), materialize_grads=True)]
