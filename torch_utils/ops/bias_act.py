"""Bias, activation, gain and clamp as one step, the non-linearity of every layer."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class Activation(NamedTuple):
    """An activation and the slope and gain it takes where the caller names none."""

    alpha: float
    gain: float
    apply: Callable[[Tensor, float, bool], Tensor]  # (x, alpha, owned): an owned x may be overwritten


# relu and lrelu work in place on a tensor of ours: they then store their result, which is what clamp stores too.
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
) -> Tensor:
    """Add a bias, apply an activation, multiply by a gain and limit the result, in this order.

    Differentiable any number of times with respect to `x` and `bias`.

    Args:
        x: Any shape and float dtype; the result has both.
        bias: One value per index of `dim`, [x.shape[dim]], cast to the dtype of `x`. None = no bias.
        dim: The dimension of `x` the bias belongs to; negative counts from the end.
        act: One of linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus, swish.
        alpha: Slope of lrelu for negative inputs, at least 0; the others ignore it. None = 0.2.
        gain: Factor after the activation. None = sqrt(2) for relu, lrelu and swish, 1 for the others.
        clamp: Limits the result to -clamp .. clamp. None = no limit.

    Raises:
        ValueError: An unknown activation, a bias that does not fit, a negative slope or limit.
    """
    _check(x, bias, dim, act, alpha, clamp)
    default = ACTIVATIONS[act]
    alpha = default.alpha if alpha is None else float(alpha)
    gain = default.gain if gain is None else float(gain)
    return _bias_act_reference(x, bias, dim, act, alpha, gain, clamp)


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


def _bias_act_reference(
    x: Tensor, bias: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None
) -> Tensor:
    owned = bias is not None
    if bias is not None:
        x = x + bias.to(x.dtype).reshape([-1 if i == dim % x.ndim else 1 for i in range(x.ndim)])
    if act in ("relu", "lrelu") and gain > 0 and gain != 1:
        x = x.mul_(gain) if owned else x * gain  # a positive factor commutes with both; done first, one tensor is kept
        owned, gain = True, 1.0
    x = ACTIVATIONS[act].apply(x, alpha, owned)
    if gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)
