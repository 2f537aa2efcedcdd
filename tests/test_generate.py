"""Pictures of seeds, written by threads behind the generator."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.config import DatasetSpec, RunConfig
from training.networks.generator import Generator
from training.sampling.picture_files import write_pictures
from training.sampling.renderer import Renderer
from training.sampling.styles import Request

REQUEST = Request(psi=0.9)


@pytest.fixture
def generator(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> Generator:
    torch.manual_seed(0)
    return Generator(tiny_config.generator, tiny_spec).eval().requires_grad_(False)


def names(seeds: Sequence[int]) -> list[str]:
    return [f"seed{seed:04d}" for seed in seeds]


@pytest.mark.parametrize("grid", [None, (3, 4)])
def test_files_are_the_pictures_of_their_batches(
    generator: Generator, tmp_path: Path, grid: tuple[int, int] | None
) -> None:
    seeds = [5, 3, 1, 4, 11, 9, 2, 6, 50, 35]
    renderer = Renderer(generator, batch=4)
    write_pictures(renderer.seed_batches(seeds, REQUEST), names(seeds), tmp_path, "png", grid and grid[1])
    parts = [seeds[start : start + 4] for start in (0, 4, 8)]
    images = torch.cat([picture for part in parts for picture in renderer.seed_batches(part, REQUEST)])
    for seed, image in zip(seeds, images, strict=True):
        with Image.open(tmp_path / f"seed{seed:04d}.png") as file:
            assert np.array_equal(np.asarray(file), image.permute(1, 2, 0).numpy())
    assert len(list(tmp_path.iterdir())) == len(seeds) + bool(grid)


def test_many_seeds_and_a_random_mode(generator: Generator, tmp_path: Path) -> None:
    renderer, seeds = Renderer(generator, "random"), range(12)
    write_pictures(renderer.seed_batches(seeds, Request()), names(seeds), tmp_path, "png")
    expected = next(renderer.seed_batches([7], Request()))[0].permute(1, 2, 0).numpy()
    with Image.open(tmp_path / "seed0007.png") as file:
        assert np.array_equal(np.asarray(file), expected)


def test_folder_that_vanishes_is_named(generator: Generator, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"gone/seed0000.png cannot be written: No such file"):
        batches = Renderer(generator, batch=4).seed_batches(range(8), REQUEST)
        write_pictures(batches, names(range(8)), tmp_path / "gone", "png")


def test_interrupt_leaves_whole_files(generator: Generator, tmp_path: Path) -> None:
    def interrupted() -> Iterator[torch.Tensor]:
        yield from Renderer(generator, batch=20).seed_batches(range(40), REQUEST)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pictures(interrupted(), names(range(100)), tmp_path, "png")
    for path in tmp_path.iterdir():
        assert path.suffix == ".png"
        with Image.open(path) as file:
            file.load()
