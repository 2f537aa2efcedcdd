"""An image of a seed is the same alone, in batches, compiled, and in its file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sampling.renderer
from sampling.renderer import Renderer, Request, labels, latents, styles, write_images
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


def test_compiled_network_always_gets_a_whole_batch(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def compiled(network: Callable[..., torch.Tensor], *given: Any) -> Callable[..., torch.Tensor]:
        def run(ws: torch.Tensor, *rest: Any) -> torch.Tensor:
            sizes.append(len(ws))
            return network(ws, *rest)

        return run

    ws = styles(generator, SEEDS, Request())
    expected = Renderer(generator, batch=2).images(ws, SEEDS)
    monkeypatch.setattr(sampling.renderer, "forward_pass", compiled)
    made = Renderer(generator, batch=2).images(ws, SEEDS)
    assert sizes == [2, 2, 2]
    assert (made.int() - expected.int()).abs().max() <= 1  # the last one was alone before
    assert torch.equal(made[:4], expected[:4])


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


@pytest.mark.parametrize("columns", [None, 4])
def test_files_are_the_images_of_their_batches(generator: Generator, tmp_path: Path, columns: int | None) -> None:
    seeds = [5, 3, 1, 4, 11, 9, 2, 6, 50, 35]
    names = [f"seed{seed:04d}" for seed in seeds]
    renderer, request = Renderer(generator, batch=4), Request(psi=0.9)
    write_images(renderer.seed_batches(seeds, request), names, tmp_path, "png", columns)
    images = renderer.images(renderer.styles(seeds, request), seeds)
    for name, image in zip(names, images, strict=True):
        with Image.open(tmp_path / f"{name}.png") as file:
            assert np.array_equal(np.asarray(file), image.permute(1, 2, 0).squeeze(2).numpy())
    assert len(list(tmp_path.iterdir())) == len(seeds) + bool(columns)
