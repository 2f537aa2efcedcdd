"""Interpolation: exact at the seeds, spherical in z, linear in w."""

import math

import numpy as np
import pytest
import torch

from sampling.interpolation import Way, frames, slerp, split_seeds, timeline
from sampling.renderer import Renderer, Request, styles
from training.networks.generator import Generator


def test_slerp_is_the_arc_exact_at_its_ends_and_keeps_the_length() -> None:
    t = torch.linspace(0, 1, 5, dtype=torch.float64).unsqueeze(1)
    a, b = torch.tensor([[1.0, 0.0]]).expand(5, -1), torch.tensor([[0.0, 1.0]]).expand(5, -1)
    angle = t.squeeze(1) * math.pi / 2
    assert torch.allclose(slerp(a, b, t), torch.stack([angle.cos(), angle.sin()], dim=1).float(), atol=1e-6)
    torch.manual_seed(0)
    a, b = torch.nn.functional.normalize(torch.randn(2, 64), dim=1).split(1)
    assert torch.equal(slerp(a, b, torch.zeros(1, 1, dtype=torch.float64)), a)
    assert torch.equal(slerp(a, b, torch.ones(1, 1, dtype=torch.float64)), b)
    t = torch.rand(20, 1, dtype=torch.float64)
    assert torch.allclose(slerp(a.expand(20, -1), b.expand(20, -1), t).norm(dim=1), torch.ones(20), atol=1e-5)
    assert torch.allclose(slerp(a.expand(20, -1), a.expand(20, -1), t), a)


@pytest.mark.parametrize("space", ["z", "w"])
@pytest.mark.parametrize("is_loop", [False, True])
def test_images_at_the_seeds_are_the_seeds_own(generator: Generator, space: str, is_loop: bool) -> None:
    renderer, seeds, request = Renderer(generator, batch=1), [3, 8, 1], Request(psi=0.9)
    way = Way(generator, seeds, request, space)
    made = list(frames(renderer, [way], timeline(3, 4, is_loop), 3, 1))
    own = [images[0].permute(1, 2, 0).numpy() for images in renderer.batches(way.ws, seeds)]
    assert len(made) == (12 if is_loop else 9)
    assert timeline(3, 4, True)[-1] == (2, 0, 0.75)  # on the way back to the first seed
    for index, image in enumerate(own):
        assert np.array_equal(made[4 * index], image)
    assert not np.array_equal(made[2], made[4])
    assert torch.allclose(way.ws, styles(generator, seeds, request))


def test_moments_of_w_lie_on_a_line_and_those_of_z_do_not(generator: Generator) -> None:
    middle = [(0, 1, 0.5)]
    for space, is_straight in (("w", True), ("z", False)):
        way = Way(generator, [3, 8], Request(), space)
        assert torch.allclose(way.styles(middle)[0], way.ws.mean(dim=0), atol=1e-6) == is_straight


def test_labels_blend_between_seeds_of_different_classes(conditional: Generator) -> None:
    way = Way(conditional, [0, 1], Request(), "z")
    z = slerp(way.z[:1], way.z[1:], torch.full((1, 1), 0.25, dtype=torch.float64))
    expected = conditional.mapping(z, torch.tensor([[0.75, 0.25, 0.0]]))
    assert torch.allclose(way.styles([(0, 1, 0.25)]), expected, atol=1e-6)


def test_animations_side_by_side(generator: Generator) -> None:
    cells = split_seeds(range(8), 4)
    assert cells == [[0, 1], [2, 3], [4, 5], [6, 7]]
    ways = [Way(generator, cell, Request(), "w") for cell in cells]
    made = list(frames(Renderer(generator, batch=8), ways, timeline(2, 3, False), 0, 2))
    height, width = generator.img_height, generator.img_width
    assert [frame.shape for frame in made] == [(2 * height, 2 * width, generator.img_channels)] * 4
    alone = list(frames(Renderer(generator, batch=8), [ways[2]], timeline(2, 3, False), 0, 1))
    for together, single in zip(made, alone, strict=True):
        assert abs(together[height:, :width].astype(int) - single.astype(int)).max() <= 1
