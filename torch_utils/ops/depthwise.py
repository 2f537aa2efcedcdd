"""Depthwise convolution with a constant kernel, differentiable any number of times, one convolution per derivative.

PyTorch's second derivative would also compute the gradient of the kernel, with one convolution per channel.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

Pair = tuple[int, int]  # y, x


def depthwise(x: Tensor, kernel: Tensor, stride: Pair, padding: Pair, transposed: bool = False) -> Tensor:
    """Convolve every channel with the same kernel; the kernel gets no gradient.

    Args:
        x: Images, [batch, channels, height, width].
        kernel: [height, width], with the dtype of x.
        stride, padding: (y, x), as in F.conv2d.
        transposed: Compute F.conv_transpose2d instead of F.conv2d.
    """
    kernel = kernel.expand(x.shape[1], 1, *kernel.shape)
    if torch.compiler.is_compiling():  # compiled code takes no second derivatives
        return _convolution(x, kernel, stride, padding, transposed)
    return _Depthwise.apply(x, kernel, None, stride, padding, transposed)


def _convolution(x: Tensor, kernel: Tensor, stride: Pair, padding: Pair, transposed: bool) -> Tensor:
    return torch.convolution(x, kernel, None, stride, padding, (1, 1), transposed, (0, 0), len(kernel))


class _Depthwise(Function):
    """The convolution of x or, given what it was a convolution of, the adjoint."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, source: Tensor | None, *settings: Any) -> Tensor:
        ctx.save_for_backward(kernel, x if source is None else None)
        ctx.settings = stride, padding, transposed = settings
        if source is None:
            return _convolution(x, kernel, *settings)
        source_grad, _, _ = torch.ops.aten.convolution_backward(
            x, source, kernel, None, stride, padding, (1, 1), transposed, (0, 0), len(kernel), (True, False, False)
        )  # of the source only shape, dtype and device are used
        return source_grad

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        kernel, source = ctx.saved_tensors
        source = None if source is None else source.detach()
        return _Depthwise.apply(grad, kernel, source, *ctx.settings), *[None] * 5
