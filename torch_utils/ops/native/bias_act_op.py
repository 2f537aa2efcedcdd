"""Registers styleformer::bias_act and its derivative with PyTorch, for autograd and torch.compile.

linear, relu and lrelu have kernels. They save the result, which the next layer saves anyway, and derive the slope from its
sign; their second derivative is 0, so the derivative of the derivative is the same operator.
"""

import math
from typing import Any

import torch
from torch import Tensor

from torch_utils.ops.bias_act import bias_act_reference
from torch_utils.ops.native.library import (
    DTYPES,
    BiasActCall,
    address,
    in_memory_order_of,
    library_of,
    math_dtype,
    register,
)

STRAIGHT = ("linear", "relu", "lrelu")

_SETTINGS = "int dim, str act, float alpha, float gain, float? clamp"


def bias_act_native(
    x: Tensor,
    bias: Tensor | None,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float | None,
    noise: Tensor | None,
    strength: Tensor | None,
) -> Tensor:
    """Return `bias_act` of checked arguments by a kernel, or by the reference for activations without one."""
    if act not in STRAIGHT:
        return bias_act_reference(x, bias, dim, act, alpha, gain, clamp, noise, strength)
    bias = None if bias is None else bias.to(x.dtype)
    noise = None if noise is None else noise.to(x.dtype)
    strength = None if strength is None else strength.to(x.device, math_dtype(x.dtype))
    return _value(x, bias, noise, strength, dim, act, alpha, gain, clamp)


def _launch(
    grad: Tensor | None,
    x: Tensor,
    bias: Tensor | None,
    noise: Tensor | None,
    strength: Tensor | None,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float | None,
) -> Tensor:
    """Return the value, dense, with the memory layout of x; given a gradient, that times the derivative at the result x."""
    result, device = torch.empty_like(x), x.device
    if x.numel() == 0:
        return result
    x = in_memory_order_of(x, result)
    grad = None if grad is None else in_memory_order_of(grad, result)
    outer, channels, inner, noise = _in_three(result, dim, bias, noise)
    bias = None if bias is None else bias.contiguous()
    call = BiasActCall(
        input=address(x, device), grad=address(grad, device), result=address(result, device),
        bias=address(bias, device), noise=address(noise, device), strength=address(strength, device),
        alpha=alpha, gain=gain, clamp=-1.0 if clamp is None else clamp,
        outer=outer, channels=channels, inner=inner, noise_outer=1 if noise is None else noise.numel() // inner,
        act=STRAIGHT.index(act), dtype=DTYPES[x.dtype],
    )  # fmt: skip
    library_of(device).run(call, device)
    return result


def _in_three(
    dense: Tensor, dim: int, bias: Tensor | None, noise: Tensor | None
) -> tuple[int, int, int, Tensor | None]:
    """Return (outer, channels, inner) of a dense tensor in its memory order, and the noise in that order."""
    if bias is None and noise is None:
        return 1, 1, dense.numel(), None
    shape, dim = dense.shape, dim % dense.ndim
    order = list(range(dense.ndim))
    if not dense.is_contiguous():
        order.sort(key=dense.stride, reverse=True)
    place = order.index(dim)
    inner = math.prod(shape[i] for i in order[place + 1 :])
    if noise is not None:
        if order[0] != 0:  # rows of noise repeat over the outermost dimension only
            noise = noise.expand(shape[0], *noise.shape[1:])
        noise = noise.permute(order).contiguous()
    return dense.numel() // (inner * shape[dim]), shape[dim], inner, noise


def _save_for_value(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, _, noise, strength, *ctx.settings = inputs
    _, act, _, _, clamp = ctx.settings
    ctx.save_for_backward(None if act == "linear" and clamp is None else output, noise, strength)


def _value_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    saved, noise, strength = ctx.saved_tensors
    dim, _, _, gain, _ = ctx.settings
    if saved is not None:
        grad = _grad(grad, saved, *ctx.settings)
    elif gain != 1:
        grad = _value(grad, None, None, None, dim, "linear", 0.0, gain, None)
    return (*_input_gradients(ctx.needs_input_grad, grad, noise, strength, dim), *[None] * 5)


def _save_for_grad(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, saved, *ctx.settings = inputs
    ctx.save_for_backward(saved)


def _grad_backward(ctx: Any, grad_grad: Tensor) -> tuple[Any, ...]:
    return (_grad(grad_grad, *ctx.saved_tensors, *ctx.settings), *[None] * 6)


def _input_gradients(
    needed: tuple[bool, ...], grad: Tensor, noise: Tensor | None, strength: Tensor | None, dim: int
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, bias, noise and strength, as needed, from that of the activation's input."""
    others = [i for i in range(grad.ndim) if i != dim % grad.ndim]
    d_bias = d_noise = d_strength = None
    if needed[1]:
        d_bias = grad.sum(others) if others else grad
    if needed[2] and noise is not None and strength is not None:
        d_noise = (grad * strength).sum_to_size(noise.shape)
    if needed[3] and noise is not None and strength is not None:
        d_strength = (grad * noise).sum(dtype=strength.dtype)
    return grad, d_bias, d_noise, d_strength


# noise: x.shape with 1 along dim, and 1 or the batch in front; strength: 0-dim, of math_dtype(x.dtype)
_value = register(
    "bias_act", f"(Tensor x, Tensor? bias, Tensor? noise, Tensor? strength, {_SETTINGS}) -> Tensor",
    lambda x, *others: _launch(None, x, *others), lambda x, *_: torch.empty_like(x), _save_for_value, _value_backward,
)  # fmt: skip
_grad = register(
    "bias_act_grad", f"(Tensor grad, Tensor saved, {_SETTINGS}) -> Tensor",
    lambda grad, saved, *settings: _launch(grad, saved, None, None, None, *settings),
    lambda grad, saved, *_: torch.empty_like(saved), _save_for_grad, _grad_backward,
)  # fmt: skip
