"""Single image transforms where they can be said to be right without a recording."""

import numpy as np
import pytest
import torch
from torch import Tensor

from training.augment.pipe import AugmentPipe
from training.augment.transforms import Affine, compose, recolor, reflect_pad, warp


def inverse_map(
    batch: int, factors: Tensor | None = None, angle: Tensor | None = None, shift: Tensor | None = None
) -> Affine:
    """Of points first moved by a shift, then rotated, then scaled."""
    none = torch.zeros(batch, 1)
    factors = torch.ones(batch, 2) if factors is None else factors
    shift = torch.zeros(batch, 2) if shift is None else shift
    return compose(1 - none, none, torch.zeros(batch, 2), none, factors, none if angle is None else angle, shift)


def test_reflection_may_be_larger_than_the_image():
    images = torch.arange(12.0).reshape(1, 1, 3, 4)
    for x_px, y_px in [(0, 0), (1, 2), (3, 2), (11, 7)]:
        expected = np.pad(images.numpy(), [(0, 0), (0, 0), (y_px, y_px), (x_px, x_px)], mode="reflect")
        np.testing.assert_array_equal(reflect_pad(images, x_px, y_px).numpy(), expected)
    with pytest.raises(ValueError, match="2 pixels"):
        reflect_pad(torch.zeros(1, 1, 1, 4), 2, 2)


def test_what_comes_from_beyond_the_border_is_the_reflection():
    torch.manual_seed(0)
    images = torch.rand(1, 1, 12, 12) * 2 - 1
    shift = torch.tensor([[5.0, -7.0]])
    moved = warp(images, inverse_map(1, shift=shift), AugmentPipe().geometry_filter)
    expected = reflect_pad(images, 8, 8)[:, :, 1:13, 13:25]
    torch.testing.assert_close(moved, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("shape", [(9, 3, 16, 16), (4, 1, 12, 20), (1, 3, 8, 8), (2, 3, 32, 24)])
@pytest.mark.parametrize("size", [0.2, 1.0, 3.0])  # of the moves
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_bounded_margin_changes_no_bit(shape, size, memory_format, monkeypatch):
    """Not of the images, nor of their derivatives; nor how these lie in memory, as sums over them follow from that."""
    torch.manual_seed(0)
    f, count = AugmentPipe().geometry_filter, shape[0]
    factors, angle = torch.exp2(torch.randn(count, 2) * 0.3 * size), torch.randn(count, 1) * size
    shift = torch.randn(count, 2) * size * shape[2] / 4
    results = []
    for is_bounded in (True, False):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda is_bounded=is_bounded: not is_bounded)
        images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        images = images.contiguous(memory_format=memory_format).requires_grad_()
        moved = warp(images, inverse_map(count, factors, angle, shift), f)
        (first,) = torch.autograd.grad(moved.square().sum(), images, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), images)
        results.append((moved, first, second))
    for bounded, whole in zip(*results, strict=True):
        assert torch.equal(bounded, whole)
        assert bounded.stride() == whole.stride()


def test_a_third_of_the_hue_circle_cycles_the_channels():
    images = torch.rand(2, 3, 4, 4)
    nothing, one = torch.zeros(2, 1), torch.ones(2, 1)
    third = torch.full([2, 1], 2 * torch.pi / 3)
    torch.testing.assert_close(recolor(images, nothing, one, one, third), images.roll(1, dims=1))
    torch.testing.assert_close(recolor(images, nothing, one, one, nothing), images)
    torch.testing.assert_close(recolor(images, one, -one, nothing, third), -images.mean(1, True).expand(2, 3, 4, 4) - 1)
