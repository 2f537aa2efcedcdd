"""Copies of training images are found; nearest rows in batches equal those of a full comparison."""

from pathlib import Path

import numpy as np
import pytest
import torch
from image_sets import write_pixels
from torch import Tensor

from sampling.nearest import describe, find_real_neighbours, nearest, open_real, read
from training.config import DatasetSpec
from training.data.stream import ImageDataset
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_batches_give_the_result_of_a_full_comparison(batch: int) -> None:
    torch.manual_seed(0)
    rows = torch.randint(0, 256, (100, 12), dtype=torch.uint8)
    queries = torch.randint(0, 256, (5, 12), dtype=torch.uint8)
    expected = (queries.double()[:, None] - rows.double()[None]).square().sum(dim=2).sqrt().sort(dim=1, stable=True)
    distances, indices = nearest(queries, rows.split(batch), 4)
    assert torch.equal(indices, expected.indices[:, :4])
    torch.testing.assert_close(distances, expected.values[:, :4], rtol=1e-12, atol=0)


def test_a_copy_has_distance_zero_even_among_large_numbers() -> None:
    rows = torch.randint(0, 256, (300, 3072), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    rows[200] = rows[100]
    rows[200, 5] ^= 1
    distances, indices = nearest(rows[[100]], rows.split(64), 2)
    assert distances.tolist() == [[0.0, 1.0]]
    assert indices.tolist() == [[100, 200]]


def random_images(generator: Generator, count: int) -> Tensor:
    rng = np.random.default_rng(0)
    shape = (count, generator.img_channels, generator.img_height, generator.img_width)
    return torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))


def test_distances_are_root_mean_squares_of_pixels(generator: Generator, tmp_path: Path) -> None:
    images = random_images(generator, 12)
    dataset = ImageDataset(write_pixels(tmp_path / "data", images.permute(0, 2, 3, 1)))
    generated = random_images(generator, 15)[12:]
    result = find_real_neighbours(generated, dataset, 2, describe("", generator, "pixels"))
    differences = generated.double()[:, None] - images.double()[None]
    expected = differences.square().mean(dim=(2, 3, 4)).sqrt().sort(dim=1)
    torch.testing.assert_close(result.distances, expected.values[:, :2])
    assert torch.equal(result.indices, expected.indices[:, :2])
    among = (images.double()[:, None] - images.double()[None]).square().mean(dim=(2, 3, 4)).sqrt()
    among.fill_diagonal_(torch.inf)
    torch.testing.assert_close(result.own, among.amin(dim=1)[result.indices])


@pytest.mark.parametrize("by", ["pixels", "features"])
def test_flipped_copies_and_duplicates_are_no_neighbours(generator, tiny_config, tmp_path, monkeypatch, by) -> None:
    """Otherwise a near copy of an image that the data set has twice would look harmless."""
    spec = DatasetSpec(generator.img_height, generator.img_width, generator.img_channels, generator.c_dim)
    discriminator = Discriminator(tiny_config.discriminator, spec).eval().requires_grad_(False)
    monkeypatch.setattr("sampling.nearest.load_discriminator", lambda network, device: discriminator)
    images = random_images(generator, 10)
    images = torch.maximum(images, images.flip(3))
    images[7] = images[3]
    dataset = ImageDataset(write_pixels(tmp_path / "data", images.permute(0, 2, 3, 1)), mirror=True)
    near = images[3:4].clone()
    near[..., 0, 0] = 255 - near[..., 0, 0]
    result = find_real_neighbours(near, dataset, 4, describe("", generator, by))
    assert set(result.indices[0].tolist()) == {3, 7, 13, 17}
    assert result.own.min() > 2 * result.distances.max() and result.ratios[0] < 0.5


def test_equal_real_images_have_no_neighbours_to_compare_with(generator: Generator, tmp_path: Path) -> None:
    images = random_images(generator, 1).expand(6, -1, -1, -1)
    dataset = ImageDataset(write_pixels(tmp_path / "data", images.permute(0, 2, 3, 1)))
    with pytest.raises(ValueError, match=r"all real images \(6\) are equal to the nearest one .* with more images"):
        find_real_neighbours(random_images(generator, 1), dataset, 1, describe("", generator, "pixels"))


def test_the_training_set_is_the_subset_used_in_training(tiny_config, conditional, tmp_path) -> None:
    folder = write_pixels(tmp_path / "data", random_images(conditional, 20).permute(0, 2, 3, 1))
    config = tiny_config.changed(data={"path": str(folder), "subset": 6, "mirror": True})
    conditional.run_config = config
    trained = ImageDataset(folder, mirror=True, max_images=6, seed=config.schedule.seed)
    found = open_real("network.pkl", conditional, None, None)
    assert len(found) == 12
    assert torch.equal(read(found, list(range(12))), read(trained, list(range(12))))
    assert len(open_real("network.pkl", conditional, str(folder), False)) == 20
