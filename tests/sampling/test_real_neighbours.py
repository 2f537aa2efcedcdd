"""Copies of training images are found, and told from images that are merely near."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sampling.nearest_sheet import neighbour_sheet
from sampling.real_neighbours import (
    Description,
    discriminator_description,
    find_real_neighbours,
    open_real,
    pixel_description,
    read,
)
from training.checkpoint.files import SNAPSHOT_FORMAT, header, write
from training.config import DatasetSpec, RunConfig
from training.data.stream import ImageDataset
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.run.preview import to_uint8


def save_images(folder: Path, images: torch.Tensor) -> Path:
    folder.mkdir()
    for index, image in enumerate(images):
        pixels = image.permute(1, 2, 0).numpy()
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(folder / f"img{index:08d}.png")
    return folder


@pytest.fixture(params=[DatasetSpec(16, 16, 3), DatasetSpec(16, 32, 1)], ids=["colour", "grey, not square"])
def spec(request: pytest.FixtureRequest) -> DatasetSpec:
    return request.param


@pytest.fixture
def generator(tiny_config: RunConfig, spec: DatasetSpec) -> Generator:
    torch.manual_seed(0)
    return Generator(tiny_config.generator, spec).eval().requires_grad_(False)


def random_images(spec: DatasetSpec, count: int) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, spec.channels, spec.height, spec.width), dtype=np.uint8))


def descriptions(config: RunConfig, spec: DatasetSpec, generator: Generator) -> list[Description]:
    discriminator = Discriminator(config.discriminator, spec).eval().requires_grad_(False)
    return [pixel_description(generator), discriminator_description(discriminator, torch.device("cpu"))]


@pytest.mark.parametrize("mirror", [False, True])
def test_a_copied_image_is_found_first_at_distance_zero(
    tiny_config: RunConfig, spec: DatasetSpec, generator: Generator, tmp_path: Path, mirror: bool
) -> None:
    generated = to_uint8(generator(torch.randn(2, generator.z_dim), noise_mode="const"))
    images = random_images(spec, 20)
    images[13], images[4] = generated[0], generated[1].flip(2)
    dataset = ImageDataset(save_images(tmp_path / "data", images), mirror=mirror)
    for description in descriptions(tiny_config, spec, generator):
        seen: list[int] = []
        result = find_real_neighbours(generated, dataset, 3, description, seen.append)
        assert sum(seen) == 2 * len(dataset) == (80 if mirror else 40)
        assert result.indices[0, 0] == 13
        assert result.distances[0, 0] < 1e-6 and result.ratios[0] < 1e-3
        if mirror:
            assert result.indices[1, 0] == 24 and result.distances[1, 0] < 1e-6
        else:
            assert result.distances[1, 0] > 1e-3
        assert (result.distances.diff(dim=1) >= 0).all()


def test_distances_are_root_mean_squares_of_pixels(spec: DatasetSpec, generator: Generator, tmp_path: Path) -> None:
    images = random_images(spec, 12)
    dataset = ImageDataset(save_images(tmp_path / "data", images))
    generated = random_images(spec, 15)[12:]
    result = find_real_neighbours(generated, dataset, 2, pixel_description(generator), lambda count: None)
    differences = generated.double()[:, None] - images.double()[None]
    expected = differences.square().mean(dim=(2, 3, 4)).sqrt().sort(dim=1)
    torch.testing.assert_close(result.distances, expected.values[:, :2])
    assert torch.equal(result.indices, expected.indices[:, :2])
    among = (images.double()[:, None] - images.double()[None]).square().mean(dim=(2, 3, 4)).sqrt()
    among.fill_diagonal_(torch.inf)
    torch.testing.assert_close(result.own, among.amin(dim=1)[result.indices])


def test_a_flipped_image_is_no_neighbour_of_its_own(spec: DatasetSpec, generator: Generator, tmp_path: Path) -> None:
    """Symmetric images would all be copies of themselves."""
    images = random_images(spec, 10)
    images = torch.maximum(images, images.flip(3))
    dataset = ImageDataset(save_images(tmp_path / "data", images), mirror=True)
    result = find_real_neighbours(images[:2], dataset, 2, pixel_description(generator), lambda count: None)
    assert result.indices.tolist() == [[0, 10], [1, 11]]
    assert (result.own > 1).all()


def test_sheet_shows_each_generated_image_before_its_neighbours(
    spec: DatasetSpec, generator: Generator, tmp_path: Path
) -> None:
    dataset = ImageDataset(save_images(tmp_path / "data", random_images(spec, 10)))
    generated = random_images(spec, 3)
    result = find_real_neighbours(generated, dataset, 4, pixel_description(generator), lambda count: None)
    page = neighbour_sheet(generated, ["a", "b", "c"], dataset, result)
    factor = 96 // max(spec.height, spec.width)
    assert page.shape[1] == 5 * (spec.width * factor + 4) + 4
    assert torch.equal(read(dataset, [2, 0]), random_images(spec, 3)[[2, 0]])


def test_a_small_data_set_is_refused(spec: DatasetSpec, generator: Generator, tmp_path: Path) -> None:
    dataset = ImageDataset(save_images(tmp_path / "data", random_images(spec, 3)))
    with pytest.raises(ValueError, match="only 3 images"):
        find_real_neighbours(random_images(spec, 1), dataset, 5, pixel_description(generator), lambda count: None)


def test_a_duplicate_is_no_neighbour_of_its_own(
    tiny_config: RunConfig, spec: DatasetSpec, generator: Generator, tmp_path: Path
) -> None:
    """Else a near copy of an image that the data set has twice would seem harmless."""
    images = random_images(spec, 10)
    images[7] = images[3]
    dataset = ImageDataset(save_images(tmp_path / "data", images))
    near = images[3:4].clone()
    near[..., 0, 0] = 255 - near[..., 0, 0]
    for description in descriptions(tiny_config, spec, generator):
        result = find_real_neighbours(near, dataset, 2, description, lambda count: None)
        assert result.indices.tolist() == [[3, 7]]
        assert result.own.min() > 2 * result.distances.max() and result.ratios[0] < 0.5


def test_the_training_set_is_the_subset_that_was_trained_on(
    tiny_config: RunConfig, generator: Generator, spec: DatasetSpec, tmp_path: Path
) -> None:
    folder = save_images(tmp_path / "data", random_images(spec, 20))
    config = replace(tiny_config, data=replace(tiny_config.data, path=str(folder), subset=6, mirror=True))
    networks = {"G": {}, "G_ema": generator.state_dict(), "D": {}}
    write(tmp_path / "network.pkl", header(SNAPSHOT_FORMAT, config, spec, 0) | networks)
    trained = ImageDataset(folder, mirror=True, max_images=6, seed=config.schedule.seed)
    found = open_real(str(tmp_path / "network.pkl"), generator, None, None)
    assert len(found) == 12
    assert torch.equal(read(found, list(range(12))), read(trained, list(range(12))))
    assert len(open_real(str(tmp_path / "network.pkl"), generator, str(folder), False)) == 20
