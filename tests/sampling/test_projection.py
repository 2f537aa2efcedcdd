"""Projection finds the styles of generated images again, from several starts in one batch."""

import statistics

import pytest
import torch
from torch import Tensor

from sampling.embeddings import discriminator_embedding
from sampling.projection.descent import Likeness, closest_samples, descend, principal_space, psnr
from sampling.renderer import random_w
from torch_utils.images import to_uint8
from training.config import DatasetSpec, RunConfig
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator


def networks(config: RunConfig, spec: DatasetSpec) -> tuple[Generator, Discriminator]:
    torch.manual_seed(0)
    generator = Generator(config.generator, spec).eval().requires_grad_(False)
    for stage in generator.synthesis.stages:
        torch.nn.init.normal_(stage.pos_embedding)  # as training leaves it: tokens differ by more than their noise
    return generator, Discriminator(config.discriminator, spec).eval().requires_grad_(False)


def image(generator: Generator, w: Tensor) -> Tensor:
    return generator.synthesis(w.expand(1, generator.num_ws, -1), noise_mode="const")


@pytest.mark.slow
@pytest.mark.parametrize("spec", [DatasetSpec(16, 16, 3), DatasetSpec(16, 32, 1), DatasetSpec(16, 16, 3, 4)])
def test_generated_images_are_recovered(tiny_config: RunConfig, spec: DatasetSpec) -> None:
    generator, discriminator = networks(tiny_config, spec)
    samples, hidden = random_w(generator, 200, seed=0), random_w(generator, 3, seed=5)
    embed, found = discriminator_embedding(discriminator), []
    for w in hidden:
        likeness = Likeness(image(generator, w), embed)
        [starts] = closest_samples(generator, samples, [likeness], 3)
        ws, losses = descend(generator, principal_space(samples), starts.unsqueeze(1), likeness, 150)
        assert ws.shape == (3, generator.num_ws, generator.w_dim)
        best = generator.synthesis(ws[[int(losses.argmin())]], noise_mode="const")
        assert likeness(best).item() == pytest.approx(losses.min().item(), rel=1e-3)
        found.append(psnr(to_uint8(best), to_uint8(likeness.target)))
    assert statistics.median(found) >= 30


def test_w_plus_gives_every_layer_a_style_of_its_own(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    """An image of mixed styles lies outside of W; W+ comes closer."""
    generator, discriminator = networks(tiny_config, tiny_spec)
    samples = random_w(generator, 200, seed=0)
    mixed = samples[: generator.num_ws].unsqueeze(0)
    likeness = Likeness(generator.synthesis(mixed, noise_mode="const"), discriminator_embedding(discriminator))
    space, start = principal_space(samples), samples[50].expand(1, 1, -1)
    steps: list[Tensor] = []
    w, loss = descend(generator, space, start, likeness, 100)
    assert torch.equal(w[0, 0], w[0, -1])
    ws, lower = descend(generator, space, w, likeness, 100, steps.append)
    assert lower[0] < 0.8 * loss[0]
    assert not torch.equal(ws[0, 0], ws[0, -1])
    assert len(steps) == 100 and torch.equal(steps[-1], ws)


def test_values_beyond_white_are_no_difference_to_white_but_to_grey() -> None:
    target = torch.tensor([1.0, 1.0, 0.5, -1.0]).view(1, 1, 2, 2)
    images = torch.tensor([[1.5, 0.8, 1.5, -3.0], [1.0, 1.0, 0.5, -1.0]]).view(2, 1, 2, 2).requires_grad_()
    losses = Likeness(target, embed=lambda x: [x.flatten(1)])(images)
    torch.testing.assert_close(losses, torch.tensor([1.25 * (0.04 + 1.0), 0]))
    losses.sum().backward()
    assert images.grad is not None and images.grad[0].flatten().ne(0).tolist() == [False, True, True, False]


def test_closest_samples_are_those_of_the_smallest_loss(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    generator, discriminator = networks(tiny_config, tiny_spec)
    samples, embed = random_w(generator, 70, seed=0), discriminator_embedding(discriminator)
    likenesses = [Likeness(image(generator, samples[index]), embed) for index in (40, 3)]
    first, second = closest_samples(generator, samples, likenesses, 4)
    assert torch.equal(first[0], samples[40]) and torch.equal(second[0], samples[3])
    losses = likenesses[0](torch.cat([image(generator, w) for w in samples]).clamp(-1, 1))
    torch.testing.assert_close(first, samples[losses.argsort()[:4]])


def test_psnr_of_a_known_error() -> None:
    a = torch.zeros(3, 4, 4, dtype=torch.uint8)
    assert psnr(a, a) == float("inf")
    assert psnr(a, a + 255) == pytest.approx(0)
    assert psnr(a, a + 51) == pytest.approx(13.9794, abs=1e-4)
