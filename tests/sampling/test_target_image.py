"""Projection targets get the size and the channels of the network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sampling.projection.target import read_target
from training.config import DatasetSpec, GeneratorConfig
from training.networks.generator import Generator


def read(tmp_path: Path, pixels: np.ndarray, channels: int = 3) -> tuple[torch.Tensor, str]:
    """The target made of pixels for a network of 24x16 px."""
    config = GeneratorConfig(widths=(8, 8), layers=(1, 1), head_width=8, z_dim=4, w_dim=4)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return read_target(tmp_path / "a.png", Generator(config, DatasetSpec(16, 24, channels)))


def test_an_image_that_fits_is_not_changed(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    target, changes = read(tmp_path, pixels)
    assert torch.equal(target, torch.from_numpy(pixels).permute(2, 0, 1))
    assert changes == ""


def test_the_centre_is_cropped_and_resized(tmp_path: Path) -> None:
    pixels = np.zeros((64, 200, 3), np.uint8)
    pixels[:, 52:148] = 200  # the centre with the network's aspect ratio
    target, changes = read(tmp_path, pixels)
    assert target.shape == (3, 16, 24) and (target == 200).all()
    assert changes == "cropped and resized from 200x64 to 24x16 px"


@pytest.mark.parametrize(
    ("pixels", "channels", "value", "changes"),
    [
        (np.full((32, 48, 3), 9, np.uint8), 3, 9, "resized from 48x32 to 24x16 px"),
        (np.full((16, 24, 3), (255, 0, 0), np.uint8), 1, 76, "turned grey"),
        (np.full((16, 24), 7, np.uint8), 3, 7, "grey as RGB"),
        (np.zeros((16, 24, 4), np.uint8), 3, 255, "transparency on white"),
    ],
)
def test_other_images_are_converted(tmp_path, pixels, channels, value, changes) -> None:
    target, described = read(tmp_path, pixels, channels)
    assert target.shape == (channels, 16, 24) and (target == value).all() and described == changes


def test_a_file_that_is_not_an_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ValueError, match=r"--target=.*text.png: is not an image"):
        read_target(tmp_path / "text.png", None)
