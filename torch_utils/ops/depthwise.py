"""Depthwise convolution with a fixed kernel, differentiable any number of times at the cost of a convolution each.

PyTorch's own second derivative works out what the kernel would get too, with a convolution of its own for every channel.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

Pair = tuple[int, int]  # y, x


def depthwise(x: Tensor, kernel: Tensor, stride: Pair, padding: Pair, transposed: bool = False) -> Tensor:
    """Convolve every channel with the same kernel, as F.conv2d or F.conv_transpose2d; no gradient reaches the kernel.

    Args:
        x: [batch, channels, height, width].
        kernel: [height, width], of the dtype of x.
        stride: As of those functions.
        padding: As of those functions.
        transposed: True = F.conv_transpose2d.
    """
    kernel = kernel.expand(x.shape[1], 1, *kernel.shape)
    if torch.compiler.is_compiling():  # no second derivatives there
        return _convolution(x, kernel, stride, padding, transposed)
    return _Depthwise.apply(x, kernel, stride, padding, transposed)


def _convolution(x: Tensor, kernel: Tensor, stride: Pair, padding: Pair, transposed: bool) -> Tensor:
    return torch.convolution(x, kernel, None, stride, padding, (1, 1), transposed, (0, 0), len(kernel))


class _Depthwise(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, *settings: Any) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.settings = settings
        return _convolution(x, kernel, *settings)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, kernel = ctx.saved_tensors
        return _Spread.apply(grad, x.detach(), kernel, *ctx.settings), *[None] * 4


class _Spread(Function):
    """The adjoint of _Depthwise."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, kernel: Tensor, *settings: Any) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.settings = stride, padding, transposed = settings
        x_grad, _, _ = torch.ops.aten.convolution_backward(
            grad, x, kernel, None, stride, padding, (1, 1), transposed, (0, 0), len(kernel), (True, False, False)
        )  # x says but where it would go
        return x_grad

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        (kernel,) = ctx.saved_tensors
        return depthwise(grad, kernel[0, 0], *ctx.settings), *[None] * 5
