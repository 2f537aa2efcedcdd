"""Differentiable transforms of a batch of images, each image by its own amount: pure functions of tensors.

All are affine in the images, so R1 and its second derivative pass through them. None waits for the GPU. Products of small
matrices are written out, so that they are not rounded to TF32 or bfloat16.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torch_utils.ops.grid_sample import grid_sample
from torch_utils.ops.upfirdn2d import downsample2d, upsample2d

STEPS = 8  # number of different margins of warped images
CACHE_BYTES = 2**20  # of a CPU core; bounds the canvas of images that are warped together


class Affine(NamedTuple):
    """A map of the plane per image, point -> linear @ point + offset; x to the right, y down, origin in the centre."""

    linear: Tensor  # [batch, 2, 2]
    offset: Tensor  # [batch, 2], pixels


def compose(
    flip: Tensor,  # factor on x, [batch, 1]
    turn: Tensor,  # angle from x towards y, radians, [batch, 1]
    shift_px: Tensor,  # [batch, 2]
    rotation: Tensor,  # angle, [batch, 1]
    stretch: Tensor,  # factors on x and y, [batch, 2]
    rotation_again: Tensor,  # angle, [batch, 1]
    shift_again_px: Tensor,  # [batch, 2]
) -> Affine:
    """Return the composition of these maps; the last argument acts first."""
    angles = torch.cat([turn, turn + rotation, rotation_again], dim=1)
    cos, sin = angles.cos(), angles.sin()
    turns = torch.stack([cos, -sin, sin, cos], dim=2).unflatten(2, (2, 2))  # [batch, 3, 2, 2]
    flipped = turns[:, :2] * F.pad(flip, [0, 1], value=1.0)[:, None, :, None]
    columns = flipped[:, 1] * stretch.unsqueeze(1)  # by turn + rotation: only a shift lies between them
    linear = (columns.unsqueeze(3) * turns[:, 2:]).sum(dim=2)
    offset = (flipped[:, 0] * shift_px.unsqueeze(1) + linear * shift_again_px.unsqueeze(1)).sum(dim=2)
    return Affine(linear, offset)


def reflect_pad(images: Tensor, x_px: int, y_px: int) -> Tensor:
    """Extend images, [batch, channels, height, width], by (repeated) reflection on all sides.

    Unlike torch.nn.functional.pad, it has no size limit and a deterministic gradient.
    """
    for dim, margin in ((2, y_px), (3, x_px)):
        while margin > 0:
            size = images.shape[dim]
            if size == 1:
                raise ValueError(f"an image of shape {tuple(images.shape[2:])} can't be reflected; it needs 2 pixels")
            step = min(margin, size - 1)
            mirrored = images.flip(dim)
            before, after = mirrored.narrow(dim, size - 1 - step, step), mirrored.narrow(dim, 1, step)
            images = torch.cat([before, images, after], dim=dim)
            margin -= step
    return images


def warp(images: Tensor, inverse: Affine, f: Tensor) -> Tensor:
    """Warp images, [batch, channels, height, width], without aliasing; beyond the border they continue by reflection.

    Upsamples by 2, samples bilinearly and downsamples (Karras et al. 2020, "Training Generative Adversarial Networks with
    Limited Data", appendix B) by the low-pass filter f, [taps], an even number. `inverse` maps output to input pixels. The
    margin of the canvas, beyond which there are zeros, is a whole image less one pixel. On the CPU only the part that the maps
    reach is computed, with the same bits; on a GPU finding that part would mean waiting for the device.
    """
    height, width = images.shape[2:]
    border = len(f) // 4  # output pixels beyond the border that the downsampling filter reaches
    points = _sampling_points(inverse, width, height, border)
    if images.device.type == "cpu" and not torch.compiler.is_compiling():
        sampled = _sample_parts(images, inverse, points, f)
    else:
        sampled = grid_sample(_canvas(images, width - 1, height - 1, f), points)
    return downsample2d(sampled, f, padding=-2 * border, flip_filter=True)


def _sampling_points(inverse: Affine, width: int, height: int, border: int) -> Tensor:
    """Return where the pixels of the result at twice its size lie on the canvas, -1..1, [batch, y, x, 2]."""
    like = inverse.linear
    x = _delayed_pixels(width + 2 * border, like)
    y = x if height == width else _delayed_pixels(height + 2 * border, like)
    unit = 1 / per_axis(3 * width - 2, 3 * height - 2, like)  # half the canvas
    by_x, by_y = (inverse.linear.mT * unit).unbind(dim=1)
    offset = (2 * inverse.offset - 0.5) * unit
    row = by_y[:, None] * y[:, None] + offset[:, None]  # [batch, y, 2]
    return torch.addcmul(row.unsqueeze(2), by_x[:, None, None], x[:, None])


def _delayed_pixels(size: int, like: Tensor) -> Tensor:
    """Return pixel centres at twice the resolution from the image centre, shifted by the filter's delay of half a pixel."""
    return torch.arange(1 - size, 1 + size, dtype=like.dtype, device=like.device)


def per_axis(x: float, y: float, like: Tensor) -> Tensor | float:
    """Return factors for the last dimension, [2], or a number if both are equal."""
    return x if x == y else torch.cat([like.new_full([1], value) for value in (x, y)])


def _canvas(images: Tensor, x_px: int, y_px: int, f: Tensor) -> Tensor:
    """Return images at twice their size with their reflection up to a margin, and zeros up to the largest margin."""
    height, width = images.shape[2:]
    x_rest, y_rest = 2 * (width - 1 - x_px), 2 * (height - 1 - y_px)
    return F.pad(upsample2d(reflect_pad(images, x_px, y_px), f), [x_rest, x_rest, y_rest, y_rest])


def _sample_parts(images: Tensor, inverse: Affine, points: Tensor, f: Tensor) -> Tensor:
    """Sample as many images at a time as fit the cache of the CPU, with the margin that they need.

    At least two at a time: some convolutions of a single image are rounded differently.
    """
    margins = _margins(images, inverse, f)
    x_px, y_px = margins.max(axis=0).tolist()
    canvas_bytes = 4 * (images.shape[3] + 2 * x_px) * (images.shape[2] + 2 * y_px) * images[0, :, 0, 0].nbytes
    num_parts = max(len(images) // max(CACHE_BYTES // canvas_bytes, 2), 1)
    groups = np.array_split(margins, num_parts)
    sizes = [len(group) for group in groups]
    largest = [group.max(axis=0).tolist() for group in groups]
    parts = zip(largest, images.split(sizes), points.split(sizes), strict=True)
    samples = [grid_sample(_canvas(part, x_px, y_px, f), at) for (x_px, y_px), part, at in parts]
    return samples[0] if num_parts == 1 else torch.cat(samples)


def _margins(images: Tensor, inverse: Affine, f: Tensor) -> np.ndarray:
    """Return the pixels (x, y) beyond the border that sampling and filters reach, rounded up to few sizes."""
    linear, offset = inverse.linear.numpy(), inverse.offset.numpy()
    size_px = np.array([images.shape[3], images.shape[2]])
    corner = size_px + 2 * (len(f) // 4)  # of the sampled points, at twice the resolution
    reach = (np.abs(linear) * corner).sum(axis=2) + np.abs(2 * offset - 0.5)
    beyond_px = (reach + 1.5 - size_px) / 2 + len(f) // 4 + 1  # 1.5: bilinear neighbours; 1: more than rounding errors
    step_px = np.maximum(size_px // STEPS, 1)
    return (np.ceil(beyond_px / step_px) * step_px).clip(0, size_px - 1).astype(int)


def _centred(size: int, like: Tensor) -> Tensor:
    """Return pixel centres along one axis, measured from the image centre."""
    return torch.arange(size, dtype=like.dtype, device=like.device) + (0.5 - size / 2)


def recolor(images: Tensor, shift: Tensor, luma_gain: Tensor, chroma_gain: Tensor, hue: Tensor) -> Tensor:
    """Shift and scale the luma, scale and rotate the chroma.

    Args:
        images: [batch, 1 or 3, height, width]; with one channel only shift and luma gain apply.
        shift: Added to the luma before scaling, [batch, 1].
        luma_gain: Factor on the luma, [batch, 1].
        chroma_gain: Factor on the difference from the luma, [batch, 1].
        hue: Angle about the axis (1, 1, 1) by the right-hand rule, [batch, 1].
    """
    shift, luma_gain, chroma_gain, hue = (value[:, :, None, None] for value in (shift, luma_gain, chroma_gain, hue))
    luma = images.mean(dim=1, keepdim=True)
    if images.shape[1] == 1:
        return (luma + shift) * luma_gain
    along, across = chroma_gain * hue.cos(), chroma_gain * hue.sin()
    turned = images.roll(1, dims=1) - images.roll(-1, dims=1)  # (1, 1, 1) x colour
    grey = torch.addcmul(shift * luma_gain, luma, luma_gain - along)
    return torch.addcmul(images * along, turned, across, value=1 / math.sqrt(3)) + grey


def filter_bands(images: Tensor, gains: Tensor, bank: Tensor) -> Tensor:
    """Amplify frequency bands, along rows and columns; images continue by reflection.

    `gains` are the factors of the bands, [batch, bands]; `bank` has a symmetric filter of odd length for each, [bands, taps],
    which add up to the identity. Images of any size from 2 x 2, [batch, channels, height, width].
    """
    batch, channels, height, width = images.shape
    reach = bank.shape[1] // 2
    kernel = (gains.unsqueeze(2) * bank).sum(dim=1).repeat_interleave(channels, dim=0)  # [images, taps]
    x = reflect_pad(images, reach, reach).reshape(1, batch * channels, height + 2 * reach, width + 2 * reach)
    x = F.conv2d(x, kernel[:, None, None, :], groups=batch * channels)
    x = F.conv2d(x, kernel[:, None, :, None], groups=batch * channels)
    return x.reshape(images.shape)


def cut_out(images: Tensor, center: Tensor, size: Tensor) -> Tensor:
    """Set a rectangle in each image, [batch, channels, height, width], to 0.

    `center` (x, y), [batch, 2], and `size`, [batch, 1], are fractions of width and height, 0..1.
    """
    height, width = images.shape[2:]
    x = _centred(width, images) / width + 0.5
    y = _centred(height, images) / height + 0.5
    inside_x = (x - center[:, :1]).abs() < size / 2  # [batch, width]
    inside_y = (y - center[:, 1:]).abs() < size / 2  # [batch, height]
    return images * ~(inside_x[:, None, None, :] & inside_y[:, None, :, None])
