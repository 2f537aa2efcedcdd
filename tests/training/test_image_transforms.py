"""Single image transforms where they can be said to be right without a recording."""

import numpy as np
import pytest
import torch

from training.augment import AugmentPipe
from training.image_transforms import Affine, identity_map, recolor, reflect_pad, warp


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
    moved = warp(images, identity_map(images).of_shifted(shift), AugmentPipe().geometry_filter)
    expected = reflect_pad(images, 8, 8)[:, :, 1:13, 13:25]
    torch.testing.assert_close(moved, expected, atol=2e-5, rtol=0)


def test_one_image_does_not_depend_on_the_others():
    torch.manual_seed(0)
    images, f = torch.rand(2, 3, 12, 12), AugmentPipe().geometry_filter
    inverse = identity_map(images).of_scaled(torch.tensor([[3.0, 3.0], [0.9, 0.9]]))
    both = warp(images, inverse, f)
    alone = warp(images[1:], Affine(inverse.linear[1:], inverse.offset[1:]), f)
    torch.testing.assert_close(both[1:], alone, atol=1e-6, rtol=0)


def test_maps_compose_from_the_right():
    torch.manual_seed(0)
    factors, angle, shift = torch.rand(3, 2) + 0.5, torch.rand(3, 1), torch.randn(3, 2)
    combined = identity_map(factors).of_scaled(factors).of_rotated(angle).of_shifted(shift)
    point = torch.randn(3, 2)
    moved = point + shift
    cos, sin = angle.cos(), angle.sin()
    turned = torch.cat([cos * moved[:, :1] - sin * moved[:, 1:], sin * moved[:, :1] + cos * moved[:, 1:]], dim=1)
    actual = (combined.linear @ point.unsqueeze(2)).squeeze(2) + combined.offset
    torch.testing.assert_close(actual, turned * factors)


def test_a_third_of_the_hue_circle_cycles_the_channels():
    images = torch.rand(2, 3, 4, 4)
    nothing, one = torch.zeros(2, 1), torch.ones(2, 1)
    third = torch.full([2, 1], 2 * torch.pi / 3)
    torch.testing.assert_close(recolor(images, nothing, one, one, third), images.roll(1, dims=1))
    torch.testing.assert_close(recolor(images, nothing, one, one, nothing), images)
    torch.testing.assert_close(recolor(images, one, -one, nothing, third), -images.mean(1, True).expand(2, 3, 4, 4) - 1)
