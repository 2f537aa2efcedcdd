"""Pictures of seeds, written by threads behind the generator."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generate import Request, generate, write_pictures
from training.config import DatasetSpec, RunConfig
from training.networks.generator import Generator

REQUEST = Request(class_index=None, psi=0.9, cutoff=None, noise_mode="const")


@pytest.fixture
def generator(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> Generator:
    torch.manual_seed(0)
    return Generator(tiny_config.generator, tiny_spec).eval().requires_grad_(False)


@pytest.mark.parametrize("grid", [None, (3, 4)])
def test_files_are_the_pictures_of_their_batches(
    generator: Generator, tmp_path: Path, grid: tuple[int, int] | None
) -> None:
    seeds = [5, 3, 1, 4, 11, 9, 2, 6, 50, 35]
    write_pictures(generator, seeds, REQUEST, tmp_path, "png", 4, grid)
    parts = [seeds[start : start + 4] for start in (0, 4, 8)]
    images = torch.cat([generate(generator, part, REQUEST) for part in parts])
    for seed, image in zip(seeds, images, strict=True):
        with Image.open(tmp_path / f"seed{seed:04d}.png") as file:
            assert np.array_equal(np.asarray(file), image.permute(1, 2, 0).numpy())
    assert len(list(tmp_path.iterdir())) == len(seeds) + bool(grid)


def test_many_seeds_and_a_random_mode(generator: Generator, tmp_path: Path) -> None:
    random = Request(class_index=None, psi=1.0, cutoff=None, noise_mode="random")
    write_pictures(generator, list(range(12)), random, tmp_path, "png", 1, None)
    expected = generate(generator, [7], random)[0].permute(1, 2, 0).numpy()
    with Image.open(tmp_path / "seed0007.png") as file:
        assert np.array_equal(np.asarray(file), expected)


def test_folder_that_vanishes_is_named(generator: Generator, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"gone/seed0000.png cannot be written: No such file"):
        write_pictures(generator, list(range(8)), REQUEST, tmp_path / "gone", "png", 4, None)


def test_interrupt_leaves_whole_files(generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = iter([True, True, False])

    def interrupted(*given: object) -> torch.Tensor:
        if not next(batches):
            raise KeyboardInterrupt
        return generate(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("generate.generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_pictures(generator, list(range(100)), REQUEST, tmp_path, "png", 20, None)
    for path in tmp_path.iterdir():
        assert path.suffix == ".png"
        with Image.open(path) as file:
            file.load()
