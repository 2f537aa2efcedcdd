"""Noise, bias, activation, gain and clamp in one operation: the non-linearity of every layer."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_utils.ops.kernels import find_kernel


class Activation(NamedTuple):
    alpha: float
    gain: float
    apply: Callable[[Tensor, float, bool], Tensor]  # (x, alpha, owned); owned: x may be overwritten


# relu and lrelu overwrite x if they may: autograd then stores their result, which the clamp stores anyway.
ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(0.0, 1.0, lambda x, alpha, owned: x),
    "relu": Activation(0.0, math.sqrt(2), lambda x, alpha, owned: F.relu(x, inplace=owned)),
    "lrelu": Activation(0.2, math.sqrt(2), lambda x, alpha, owned: F.leaky_relu(x, alpha, inplace=owned)),
    "tanh": Activation(0.0, 1.0, lambda x, alpha, owned: x.tanh()),
    "sigmoid": Activation(0.0, 1.0, lambda x, alpha, owned: x.sigmoid()),
    "elu": Activation(0.0, 1.0, lambda x, alpha, owned: F.elu(x)),
    "selu": Activation(0.0, 1.0, lambda x, alpha, owned: F.selu(x)),
    "softplus": Activation(0.0, 1.0, lambda x, alpha, owned: F.softplus(x)),
    "swish": Activation(0.0, math.sqrt(2), lambda x, alpha, owned: F.silu(x)),
}


def bias_act(
    x: Tensor,
    bias: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    noise: Tensor | None = None,
    noise_strength: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """Add noise and bias, apply the activation, multiply by the gain and clamp, in this order.

    Differentiable any number of times with respect to `x`, `bias`, `noise` and `noise_strength`.

    Args:
        x: Any shape and float dtype; the result has both.
        bias: One value per index of `dim`, [x.shape[dim]], cast to the dtype of `x`. None = no bias.
        dim: The dimension of `x` the bias belongs to; negative counts from the end.
        act: One of linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus, swish.
        alpha: Slope of lrelu for negative inputs, at least 0; the others ignore it. None = 0.2.
        gain: Factor after the activation. None = sqrt(2) for relu, lrelu and swish, 1 for the others.
        clamp: The result is limited to [-clamp, clamp]. None = no limit.
        noise: Added before the bias, times `noise_strength`: the shape of `x` with 1 along `dim`, and 1 or the batch
            along dimension 0; cast to the dtype of `x`. None = no noise.
        noise_strength: One number, [].
        inplace: x may be overwritten, which saves one tensor.

    Raises:
        ValueError: An unknown activation, a bias or noise that does not fit, a negative slope or limit.
    """
    _check(x, bias, dim, act, alpha, clamp)
    _check_noise(x, dim, noise, noise_strength)
    default = ACTIVATIONS[act]
    alpha = default.alpha if alpha is None else float(alpha)
    gain = default.gain if gain is None else float(gain)
    does_nothing = bias is None and noise is None and act == "linear" and gain == 1 and clamp is None
    kernel = None if does_nothing else find_kernel("bias_act", x)
    if kernel is not None:
        return kernel(x, bias, dim, act, alpha, gain, clamp, noise, noise_strength)
    return bias_act_reference(x, bias, dim, act, alpha, gain, clamp, noise, noise_strength, inplace)


def _check(x: Tensor, bias: Tensor | None, dim: int, act: str, alpha: float | None, clamp: float | None) -> None:
    if act not in ACTIVATIONS:
        raise ValueError(f"act={act!r} is not known; use one of {', '.join(ACTIVATIONS)}")
    if not x.is_floating_point():
        raise ValueError(f"x has dtype {x.dtype}; convert it to a float dtype first")
    if bias is not None:
        if not -x.ndim <= dim < x.ndim:
            raise ValueError(f"dim={dim} is outside the {x.ndim} dimensions of x")
        if tuple(bias.shape) != (x.shape[dim],):
            raise ValueError(f"bias has shape {tuple(bias.shape)}; dimension {dim} of x needs ({x.shape[dim]},)")
    if alpha is not None and not alpha >= 0:
        raise ValueError(f"alpha={alpha} must be at least 0")
    if clamp is not None and not clamp >= 0:
        raise ValueError(f"clamp={clamp} must be at least 0; pass None for no limit")


def _check_noise(x: Tensor, dim: int, noise: Tensor | None, strength: Tensor | None) -> None:
    if (noise is None) != (strength is None):
        raise ValueError("noise and noise_strength belong together: pass both or neither")
    if noise is None or strength is None:
        return
    if x.ndim < 2 or dim % x.ndim == 0:
        raise ValueError(f"noise needs a dim other than 0 of an x with 2 or more dimensions; got dim={dim}")
    expected = [1 if i == dim % x.ndim else size for i, size in enumerate(x.shape)]
    if list(noise.shape) not in (expected, [1, *expected[1:]]):
        raise ValueError(f"noise has shape {tuple(noise.shape)}; x and dim={dim} need {tuple(expected)}, or 1 in front")
    if strength.ndim != 0:
        raise ValueError(f"noise_strength has shape {tuple(strength.shape)}; one number, [], is needed")


def bias_act_reference(
    x: Tensor,
    bias: Tensor | None,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float | None,
    noise: Tensor | None,
    strength: Tensor | None,
    inplace: bool = False,
) -> Tensor:
    """Return `bias_act` of checked arguments in plain PyTorch: the specification, for every device and dtype."""
    owned = inplace or bias is not None
    if noise is not None and strength is not None:
        x = torch.addcmul(x, noise.to(x.dtype), strength.to(x.dtype))
        owned = True
    if bias is not None:
        x = x + bias.to(x.dtype).reshape([-1 if i == dim % x.ndim else 1 for i in range(x.ndim)])
    if act in ("relu", "lrelu") and gain > 0 and gain != 1:
        x = x.mul_(gain) if owned else x * gain  # a positive factor commutes with both; first, it saves a tensor
        owned, gain = True, 1.0
    x = ACTIVATIONS[act].apply(x, alpha, owned)
    if gain != 1:
        x = x * gain
    return x if clamp is None else F.hardtanh(x, -clamp, clamp)  # its backward is one kernel, that of clamp five
