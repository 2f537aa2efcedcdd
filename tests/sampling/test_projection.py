"""Projection finds the styles of generated images again, from several starts in one batch."""

import statistics

import pytest
import torch
from torch import Tensor

from sampling.embeddings import discriminator_embedding, squared_distances
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


def test_a_start_is_not_moved_by_the_others(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    generator, discriminator = networks(tiny_config, tiny_spec)
    samples = random_w(generator, 100, seed=0)
    likeness = Likeness(image(generator, samples[0]), discriminator_embedding(discriminator))
    space = principal_space(samples)
    together, _ = descend(generator, space, samples[1:4].unsqueeze(1), likeness, 5)
    alone, _ = descend(generator, space, samples[[2]].unsqueeze(1), likeness, 5)
    torch.testing.assert_close(together[1], alone[0], rtol=1e-3, atol=1e-4)


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


def test_space_makes_random_w_even_and_gives_them_back(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    samples = random_w(networks(tiny_config, tiny_spec)[0], 2000, seed=0)
    space = principal_space(samples)
    coordinates = space.from_w(samples)
    torch.testing.assert_close(space.to_w(coordinates), samples, rtol=1e-4, atol=1e-4)
    assert coordinates.mean(dim=0).abs().max() < 1e-3
    assert 0.99 < coordinates.std(dim=0).max() < 1.01
    correlation = coordinates.T @ coordinates / len(coordinates)
    assert (correlation - correlation.diag().diag()).abs().max() < 1e-3


def test_embedding_of_the_discriminator_is_a_distance(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    embed = discriminator_embedding(networks(tiny_config, tiny_spec)[1])
    a, b = torch.rand(2, 4, 3, 16, 16) * 2 - 1
    distances = squared_distances(embed(a), embed(b))
    assert distances.shape == (4,) and (distances > 0).all() and (distances <= 4).all()
    assert torch.equal(squared_distances(embed(a), embed(a)), torch.zeros(4))
    lengths = sum(part.square().sum(dim=1) for part in embed(a))
    torch.testing.assert_close(lengths, torch.ones(4), rtol=1e-3, atol=1e-3)


def test_psnr_of_a_known_error() -> None:
    a = torch.zeros(3, 4, 4, dtype=torch.uint8)
    assert psnr(a, a) == float("inf")
    assert psnr(a, a + 255) == pytest.approx(0)
    assert psnr(a, a + 51) == pytest.approx(13.9794, abs=1e-4)
