"""Differentiable changes to a batch of images, each image by its own amount: pure functions of tensors.

All are linear in the images up to an offset, so R1 and its second derivative pass through them. None waits for a
value from the device. Products of small matrices are written out: they must not be rounded to TF32 or bfloat16.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_utils.ops.grid_sample import grid_sample
from torch_utils.ops.upfirdn2d import downsample2d, upsample2d


class Affine(NamedTuple):
    """One map of the plane an image, point -> linear @ point + offset; x to the right, y down, origin in the centre."""

    linear: Tensor  # [batch, 2, 2]
    offset: Tensor  # [batch, 2], pixels

    def of_scaled(self, factors: Tensor) -> "Affine":
        """Return the map of points first multiplied by the factors, [batch, 2]."""
        return Affine(self.linear * factors.unsqueeze(1), self.offset)

    def of_rotated(self, angle: Tensor) -> "Affine":
        """Return the map of points first rotated by an angle, [batch, 1], from x towards y."""
        cos, sin = angle.cos(), angle.sin()
        x, y = self.linear.unbind(2)
        return Affine(torch.stack([x * cos + y * sin, y * cos - x * sin], dim=2), self.offset)

    def of_shifted(self, shift: Tensor) -> "Affine":
        """Return the map of points first moved by a shift, [batch, 2]."""
        return Affine(self.linear, self.offset + (self.linear * shift.unsqueeze(1)).sum(dim=2))


def identity_map(like: Tensor) -> Affine:
    """Return the map that leaves every image of this batch where it is."""
    batch = like.shape[0]
    linear = torch.eye(2, dtype=like.dtype, device=like.device).expand(batch, 2, 2)
    return Affine(linear, like.new_zeros([batch, 2]))


def reflect_pad(images: Tensor, x_px: int, y_px: int) -> Tensor:
    """Extend images, [batch, channels, height, width], by reflection on all sides, as often as the margin needs.

    Made of copies alone, so unlike torch.nn.functional.pad it has no size limit and its gradient is deterministic.
    """
    for dim, margin in ((2, y_px), (3, x_px)):
        while margin > 0:
            size = images.shape[dim]
            if size == 1:
                raise ValueError(f"an image of shape {tuple(images.shape[2:])} can't be reflected; it needs 2 pixels")
            step = min(margin, size - 1)
            before = images.narrow(dim, 1, step).flip(dim)
            after = images.narrow(dim, size - 1 - step, step).flip(dim)
            images = torch.cat([before, images, after], dim=dim)
            margin -= step
    return images


def warp(images: Tensor, inverse: Affine, f: Tensor) -> Tensor:
    """Move the pixels of images without aliasing; what comes from beyond the border is the image's reflection.

    Twice the resolution, bilinear sampling, then back (Karras et al. 2020, "Training Generative Adversarial Networks
    with Limited Data", appendix B). The margin is always the largest reflection possible, a whole image less one
    pixel: one that fits the maps would give the same images but had to be read back from the device.

    Args:
        images: [batch, channels, height, width], any size.
        inverse: Where each output pixel comes from, in input pixels.
        f: Low-pass filter with an even number of taps, [taps].

    Returns:
        [batch, channels, height, width]; zero where even the reflection ends.
    """
    height, width = images.shape[2:]
    border = len(f) // 4  # output pixels beyond the border that the down-sampling filter reaches
    canvas = upsample2d(reflect_pad(images, width - 1, height - 1), f)
    x, y = (_centred(2 * (size + 2 * border), images) + 0.5 for size in (width, height))  # f delays by half a pixel
    linear, offset = inverse.linear[:, None, None], inverse.offset[:, None, None]
    source_px = linear[..., 0] * x[:, None] + linear[..., 1] * y[:, None, None] + (2 * offset - 0.5)
    half_size = torch.stack([torch.full_like(x[0], canvas.shape[3] / 2), torch.full_like(x[0], canvas.shape[2] / 2)])
    sampled = grid_sample(canvas, source_px / half_size)
    return downsample2d(sampled, f, padding=-2 * border, flip_filter=True)


def _centred(size: int, like: Tensor) -> Tensor:
    """Pixel centres along one axis, measured from the middle of the image."""
    return torch.arange(size, dtype=like.dtype, device=like.device) + (0.5 - size / 2)


def recolor(images: Tensor, shift: Tensor, luma_gain: Tensor, chroma_gain: Tensor, hue: Tensor) -> Tensor:
    """Split colours into grey axis and colour plane: shift and scale the one, scale and rotate the other.

    Args:
        images: [batch, 1 or 3, height, width]; with one channel only shift and luma gain apply.
        shift: Added to the luma before scaling, [batch, 1].
        luma_gain: Factor on the luma, [batch, 1].
        chroma_gain: Factor on what differs from the luma, [batch, 1].
        hue: Angle about the axis (1, 1, 1) by the right-hand rule, [batch, 1].
    """
    shift, luma_gain, chroma_gain, hue = (value[:, :, None, None] for value in (shift, luma_gain, chroma_gain, hue))
    luma = images.mean(dim=1, keepdim=True)
    grey = (luma + shift) * luma_gain
    if images.shape[1] == 1:
        return grey
    across = (images.roll(1, dims=1) - images.roll(-1, dims=1)) / math.sqrt(3)  # (1, 1, 1) / sqrt(3) x colour
    return grey + (images - luma) * (chroma_gain * hue.cos()) + across * (chroma_gain * hue.sin())


def filter_bands(images: Tensor, gains: Tensor, bank: Tensor) -> Tensor:
    """Amplify frequency bands, along rows and along columns; the image continues by reflection.

    Args:
        images: [batch, channels, height, width], any size from 2 x 2.
        gains: Factor of each band, [batch, bands].
        bank: Filter of each band, together the identity, [bands, taps]; odd and symmetric.
    """
    batch, channels, height, width = images.shape
    reach = bank.shape[1] // 2
    kernel = (gains.unsqueeze(2) * bank).sum(dim=1).repeat_interleave(channels, dim=0)  # [images, taps]
    x = reflect_pad(images, reach, reach).reshape(1, batch * channels, height + 2 * reach, width + 2 * reach)
    x = F.conv2d(x, kernel[:, None, None, :], groups=batch * channels)
    x = F.conv2d(x, kernel[:, None, :, None], groups=batch * channels)
    return x.reshape(images.shape)


def cut_out(images: Tensor, center: Tensor, size: Tensor) -> Tensor:
    """Blacken (set to 0) a rectangle in each image.

    Args:
        images: [batch, channels, height, width].
        center: Centre (x, y) as a share of width and height, 0..1, [batch, 2].
        size: Width and height of the rectangle as a share of the image's, 0..1, [batch, 1].
    """
    height, width = images.shape[2:]
    x = _centred(width, images) / width + 0.5
    y = _centred(height, images) / height + 0.5
    inside_x = (x - center[:, :1]).abs() < size / 2  # [batch, width]
    inside_y = (y - center[:, 1:]).abs() < size / 2  # [batch, height]
    return images * ~(inside_x[:, None, None, :] & inside_y[:, None, :, None])
