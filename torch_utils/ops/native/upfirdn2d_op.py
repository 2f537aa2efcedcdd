"""Registers styleformer::upfirdn2d with PyTorch. Its gradient is upfirdn2d with up and down swapped and the filter reversed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torch_utils.ops.native.library import DTYPES, UpfirdnCall, address, library_of, math_dtype, register
from torch_utils.ops.upfirdn2d import upfirdn2d_reference

MAX_TAPS = 32
MAX_FACTOR = 256


def upfirdn2d_native(
    x: Tensor,
    f: Tensor | None,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip: bool,
    gain: float,
) -> Tensor:
    """Return `upfirdn2d` of checked arguments by a kernel, or by the reference for very large filters or factors."""
    if max(*up, *down) > MAX_FACTOR or (f is not None and max(f.shape) > MAX_TAPS):
        return upfirdn2d_reference(x, f, up, down, padding, flip, gain)
    dtype = math_dtype(x.dtype)
    f = torch.ones([1, 1], dtype=dtype, device=x.device) if f is None else f.detach().to(dtype)
    return _apply(x, f, up, down, padding, flip, gain)


def _empty_result(
    x: Tensor, f: Tensor, up: Sequence[int], down: Sequence[int], padding: Sequence[int], flip: bool, gain: float
) -> Tensor:
    batch, channels, height, width = x.shape
    out_x = (width * up[0] + padding[0] + padding[1] - f.shape[-1]) // down[0] + 1
    out_y = (height * up[1] + padding[2] + padding[3] - f.shape[0]) // down[1] + 1
    return torch.empty([batch, channels, out_y, out_x], dtype=x.dtype, device=x.device, memory_format=_memory_format(x))


def _launch(
    x: Tensor, f: Tensor, up: Sequence[int], down: Sequence[int], padding: Sequence[int], flip: bool, gain: float
) -> Tensor:
    result = _empty_result(x, f, up, down, padding, flip, gain)
    memory_format = _memory_format(x)
    x, f, device = x.contiguous(memory_format=memory_format), f.contiguous(), x.device
    call = UpfirdnCall(
        x=address(x, device), f=address(f, device), y=address(result, device), gain=gain, batch=x.shape[0], channels=x.shape[1],
        in_height=x.shape[2], in_width=x.shape[3], out_height=result.shape[2], out_width=result.shape[3],
        pad_x0=padding[0], pad_y0=padding[2], up_x=up[0], up_y=up[1], down_x=down[0], down_y=down[1],
        taps_x=f.shape[-1], taps_y=f.shape[0], separable=f.ndim == 1, flip=flip,
        channels_last=memory_format == torch.channels_last, dtype=DTYPES[x.dtype],
    )  # fmt: skip
    library_of(device).run(call, device)
    return result


def _memory_format(x: Tensor) -> torch.memory_format:
    is_channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if is_channels_last else torch.contiguous_format


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, f, *ctx.settings = inputs
    ctx.in_size, ctx.out_size = (x.shape[3], x.shape[2]), (output.shape[3], output.shape[2])
    ctx.save_for_backward(f)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (f,) = ctx.saved_tensors
    up, down, padding, flip, gain = ctx.settings
    around = []
    for axis, taps in enumerate((f.shape[-1], f.shape[0])):
        before = padding[2 * axis]
        beyond = ctx.in_size[axis] * up[axis] - ctx.out_size[axis] * down[axis] + before - up[axis] + 1
        around += [taps - 1 - before, beyond]
    d_x = _apply(grad, f, down, up, around, not flip, gain)
    return d_x, *[None] * 6


# Pairs are (x, y); padding is (x0, x1, y0, y1); f is [taps_y, taps_x] or [taps], of math_dtype(x.dtype).
_apply = register(
    "upfirdn2d", "(Tensor x, Tensor f, int[] up, int[] down, SymInt[] padding, bool flip, float gain) -> Tensor",
    _launch, _empty_result, _save, _backward,
)  # fmt: skip
