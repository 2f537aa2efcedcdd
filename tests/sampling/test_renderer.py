"""An image of a seed is the same alone, in batches, compiled, and in its file."""

import torch

from sampling.renderer import Renderer, Request, labels, latents, styles
from torch_utils.images import to_uint8
from training.config import PerformanceConfig
from training.networks.generator import Generator

SEEDS = [5, 1, 7, 2, 9]


def test_images_of_seeds_are_those_of_the_generator(generator: Generator) -> None:
    z, c = latents(SEEDS, generator.z_dim, torch.device("cpu")), labels(generator, SEEDS)
    expected = to_uint8(generator(z, c, 0.7, 2, noise_mode="const"))
    made = list(Renderer(generator, batch=5).seed_batches(SEEDS, Request(None, 0.7, 2)))
    assert len(made) == 1
    assert torch.equal(made[0], expected)


def test_lower_precision_comes_close(generator: Generator) -> None:
    ws = styles(generator, SEEDS, Request())
    exact = Renderer(generator).images(ws, SEEDS).int()
    rounded = Renderer(generator, performance=PerformanceConfig(precision="bf16")).images(ws, SEEDS).int()
    assert not torch.equal(rounded, exact)
    assert (rounded - exact).abs().float().mean() < 5


def test_random_noise_follows_from_the_seed_alone(generator: Generator) -> None:
    for module in generator.modules():
        if hasattr(module, "noise_strength"):
            module.noise_strength.fill_(0.5)
    renderer = Renderer(generator, "random", batch=4)
    together = torch.cat(list(renderer.seed_batches(SEEDS, Request())))
    alone = next(renderer.seed_batches([7], Request()))
    assert torch.equal(together[2], alone[0])
    ws = renderer.styles(SEEDS, Request())
    assert torch.equal(renderer.images(ws, SEEDS), together)
    assert not torch.equal(renderer.images(ws, [0] * 5), together)
