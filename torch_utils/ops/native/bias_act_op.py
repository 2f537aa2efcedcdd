"""Registers styleformer::bias_act and its derivatives with PyTorch, for autograd and torch.compile.

linear, relu and lrelu ("straight") save the result, which the next layer saves anyway, and derive the slope from its
sign; their second derivative is 0. The other activations save the input. The first derivative is an operator, whose
gradient is itself and, for the others, the second derivative, a third operator. Higher derivatives use the reference.
"""

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from torch_utils.ops.bias_act_reference import ACTIVATIONS, bias_act_reference
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
_ACT_NUMBERS = {name: number for number, name in enumerate(ACTIVATIONS)}

# noise: x.shape with 1 along dim, and 1 or the batch in front; strength: 0-dim, of math_dtype(x.dtype)
_ADDED = "Tensor? bias, Tensor? noise, Tensor? strength"
_SETTINGS = "int dim, str act, float alpha, float gain, float? clamp"
Added = tuple[Tensor | None, Tensor | None, Tensor | None]  # bias, noise, strength
Settings = tuple[int, str, float, float, float | None]  # dim, act, alpha, gain, clamp


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
    """Return `bias_act` of checked arguments by a kernel."""
    bias = None if bias is None else bias.to(x.dtype)
    noise = None if noise is None else noise.to(x.dtype)
    strength = None if strength is None else strength.to(x.device, math_dtype(x.dtype))
    return _value(x, bias, noise, strength, dim, act, alpha, gain, clamp)


def _launch_value(x: Tensor, *arguments: Any) -> Tensor:
    return _launch(0, x, None, None, arguments[:3], arguments[3:])


def _launch_grad(grad: Tensor, saved: Tensor, *arguments: Any) -> Tensor:
    return _launch(1, saved, grad, None, arguments[:3], arguments[3:])


def _launch_grad2(grad: Tensor, grad_grad: Tensor, x: Tensor, *arguments: Any) -> Tensor:
    return _launch(2, x, grad, grad_grad, arguments[:3], arguments[3:])


def _launch(
    order: int, x: Tensor, grad: Tensor | None, grad_grad: Tensor | None, added: Added, settings: Settings
) -> Tensor:
    """Return the derivative of this order, dense, with the memory layout of x."""
    bias, noise, strength = added
    dim, act, alpha, gain, clamp = settings
    result, device = torch.empty_like(x), x.device
    if x.numel() == 0:
        return result
    x = in_memory_order_of(x, result)
    grad = None if grad is None else in_memory_order_of(grad, result)
    grad_grad = None if grad_grad is None else in_memory_order_of(grad_grad, result)
    outer, channels, inner, noise = _in_three(result, dim, bias, noise)
    bias = None if bias is None else bias.contiguous()
    call = BiasActCall(
        input=address(x, device), grad=address(grad, device), grad_grad=address(grad_grad, device),
        result=address(result, device),
        bias=address(bias, device), noise=address(noise, device), strength=address(strength, device),
        alpha=alpha, gain=gain, clamp=-1.0 if clamp is None else clamp,
        outer=outer, channels=channels, inner=inner, noise_outer=1 if noise is None else noise.numel() // inner,
        act=_ACT_NUMBERS[act], dtype=DTYPES[x.dtype], order=order,
    )  # fmt: skip
    library_of(device).bias_act(call, device)
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
    x, bias, noise, strength, *ctx.settings = inputs
    _, act, _, _, clamp = ctx.settings
    ctx.is_straight = act in STRAIGHT
    saved = x if not ctx.is_straight else None if act == "linear" and clamp is None else output
    ctx.save_for_backward(saved, None if ctx.is_straight else bias, noise, strength)


def _value_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    saved, *added = ctx.saved_tensors
    dim, _, _, gain, _ = ctx.settings
    if saved is not None:
        grad = _grad(grad, saved, *(_NOTHING if ctx.is_straight else added), *ctx.settings)
    elif gain != 1:
        grad = _value(grad, *_NOTHING, dim, "linear", 0.0, gain, None)
    return (*_input_gradients(ctx.needs_input_grad[:4], grad, added, dim), *[None] * 5)


def _save_for_grad(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, saved, bias, noise, strength, *ctx.settings = inputs
    ctx.is_straight = ctx.settings[1] in STRAIGHT
    ctx.save_for_backward(None if ctx.is_straight else grad, saved, bias, noise, strength)


def _grad_backward(ctx: Any, grad_grad: Tensor) -> tuple[Any, ...]:
    grad, saved, *added = ctx.saved_tensors
    grad_of_grad = _grad(grad_grad, saved, *added, *ctx.settings)
    if ctx.is_straight or not any(ctx.needs_input_grad[1:5]):
        return (grad_of_grad, *[None] * 9)
    curvature = _grad2(grad, grad_grad, saved, *added, *ctx.settings)
    return (grad_of_grad, *_input_gradients(ctx.needs_input_grad[1:5], curvature, added, ctx.settings[0]), *[None] * 5)


def _save_for_grad2(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, _, _, _, _, _ = inputs
    ctx.settings = inputs[6:]
    ctx.save_for_backward(*tensors)


def _grad2_backward(ctx: Any, grad3: Tensor) -> tuple[Any, ...]:
    """Return the third derivative by autograd of the reference, itself differentiable any number of times."""
    dim, act, alpha, gain, clamp = ctx.settings
    is_differentiable, is_needed = torch.is_grad_enabled(), ctx.needs_input_grad[:6]
    with torch.enable_grad():
        inputs = [
            t if t is None or (is_differentiable and t.requires_grad) else t.detach().requires_grad_()
            for t in ctx.saved_tensors
        ]
        grad, grad_grad, x, bias, noise, strength = inputs
        y = bias_act_reference(x, bias, dim, act, alpha, gain, clamp, noise, strength)
        for weight in (grad, grad_grad):
            (y,) = torch.autograd.grad(y, x, weight, create_graph=True)
        wanted = list(itertools.compress(inputs, is_needed))
        found = iter(torch.autograd.grad(y, wanted, grad3, create_graph=is_differentiable))
    return (*(next(found) if needed else None for needed in is_needed), *[None] * 5)


def _input_gradients(needed: tuple[bool, ...], grad: Tensor, added: list[Tensor | None], dim: int) -> tuple[Any, ...]:
    """Return the gradients of x, bias, noise and strength, as needed, from that of the activation's input."""
    _, noise, strength = added
    others = [i for i in range(grad.ndim) if i != dim % grad.ndim]
    d_bias = d_noise = d_strength = None
    if needed[1]:
        d_bias = grad.sum(others) if others else grad
    if needed[2] and noise is not None and strength is not None:
        d_noise = (grad * strength).sum_to_size(noise.shape)
    if needed[3] and noise is not None and strength is not None:
        d_strength = (grad * noise).sum(dtype=strength.dtype)
    return grad, d_bias, d_noise, d_strength


_NOTHING: Added = (None, None, None)
_value = register(
    "bias_act", f"(Tensor x, {_ADDED}, {_SETTINGS}) -> Tensor",
    _launch_value, lambda x, *_: torch.empty_like(x), _save_for_value, _value_backward,
)  # fmt: skip
_grad = register(
    "bias_act_grad", f"(Tensor grad, Tensor saved, {_ADDED}, {_SETTINGS}) -> Tensor",
    _launch_grad, lambda grad, saved, *_: torch.empty_like(saved), _save_for_grad, _grad_backward,
)  # fmt: skip
_grad2 = register(
    "bias_act_grad2", f"(Tensor grad, Tensor grad_grad, Tensor x, {_ADDED}, {_SETTINGS}) -> Tensor",
    _launch_grad2, lambda grad, grad_grad, x, *_: torch.empty_like(x), _save_for_grad2, _grad2_backward,
)  # fmt: skip
