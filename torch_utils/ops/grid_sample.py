"""Bilinear sampling of images at given points, differentiable any number of times."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

_BILINEAR, _ZEROS, _ALIGN_CORNERS = 0, 0, False
HAS_SECOND_DERIVATIVE = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 12)  # PyTorch's grid_sample


def grid_sample(images: Tensor, grid: Tensor) -> Tensor:
    """Sample images bilinearly at points, with zeros outside; -1 and 1 are the outer edges of the border pixels.

    Equal to torch.nn.functional.grid_sample(align_corners=False), which lacks the second derivative before PyTorch 2.12.
    For older versions an autograd function adds it: sampling is linear in the images, so they need not be saved for
    backward, and every derivative is sampling or its adjoint. The grid gets no gradient.

    Args:
        images: [batch, channels, height, width], any float dtype; the result has it too.
        grid: Points (x, y), [batch, out height, out width, 2]; its dtype, float32 or float64, is the one computed in.

    Returns:
        [batch, channels, out height, out width].
    """
    x = images.to(grid.dtype)
    sampled = _bilinear(x, grid) if HAS_SECOND_DERIVATIVE else _GridSample.apply(x, grid, None)
    return sampled.to(images.dtype)


def _bilinear(images: Tensor, grid: Tensor) -> Tensor:
    return torch.grid_sampler_2d(images, grid, _BILINEAR, _ZEROS, _ALIGN_CORNERS)


class _GridSample(Function):
    """Samples images, or, given their size, adds values to the four pixels each was sampled from: its adjoint."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Tensor, size: torch.Size | None) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.size = x.shape if size is None else None
        if size is None:
            return _bilinear(x, grid)
        images = x.new_zeros([1]).expand(size)  # their values matter only for the gradient of the grid
        images_grad, _ = torch.ops.aten.grid_sampler_2d_backward(
            x, images, grid, _BILINEAR, _ZEROS, _ALIGN_CORNERS, [True, False]
        )
        return images_grad

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _GridSample.apply(grad, grid, ctx.size), None, None
