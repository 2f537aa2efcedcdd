"""bias_act in plain PyTorch: the specification, for every device and dtype."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


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
    """Return `bias_act` of checked arguments."""
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
