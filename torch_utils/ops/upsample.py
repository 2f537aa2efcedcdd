"""Up-sampling by 2 with the [1, 3, 3, 1] filter as slices and sums: deterministic, differentiable any number of times.

Along each axis a pixel becomes two: 0.75 of itself and 0.25 of the neighbour on that side. The gradient is made of slices
and sums too, so neither direction scatters.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function


def upsample2x(x: Tensor) -> Tensor:
    """Return images, [batch, height, width, channels], at twice the size, with zeros beyond the border.

    Equal to `upfirdn2d.upsample2d` with the taps [1, 3, 3, 1] on channels-first images.
    """
    return _Upsample.apply(x, False)


def _upsample(x: Tensor) -> Tensor:
    x = F.pad(x, [0, 0, 1, 1, 1, 1])
    for dim in (1, 2):
        size = x.shape[dim] - 2
        before, middle, after = (x.narrow(dim, start, size) for start in range(3))
        pair = torch.stack([middle.lerp(before, 0.25), middle.lerp(after, 0.25)], dim + 1)
        x = pair.flatten(dim, dim + 1)
    return x


def _adjoint(grad: Tensor) -> Tensor:
    grad = F.pad(grad, [0, 0, 1, 1, 1, 1])
    for dim in (1, 2):
        pairs = grad.unflatten(dim, (-1, 2))  # neighbours that come from different pixels
        first, second = pairs.select(dim + 1, 0), pairs.select(dim + 1, 1)
        size = pairs.shape[dim] - 1
        near = second.narrow(dim, 0, size) + first.narrow(dim, 1, size)
        far = first.narrow(dim, 0, size) + second.narrow(dim, 1, size)
        grad = near.lerp_(far, 0.25)
    return grad


class _Upsample(Function):
    """Up-sampling, or its adjoint; each is the derivative of the other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, is_adjoint: bool) -> Tensor:
        ctx.is_adjoint = is_adjoint
        return _adjoint(x) if is_adjoint else _upsample(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Upsample.apply(grad, not ctx.is_adjoint), None
