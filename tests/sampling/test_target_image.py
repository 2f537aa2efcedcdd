"""Targets come in the size and the colours of the network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sampling.projection.target import read_target
from training.config import DatasetSpec, GeneratorConfig
from training.networks.generator import Generator


def network(height: int, width: int, channels: int) -> Generator:
    config = GeneratorConfig(widths=(8, 8), layers=(1, 1), head_width=8, z_dim=4, w_dim=4)
    return Generator(config, DatasetSpec(height, width, channels))


def save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_a_image_of_the_right_kind_is_taken_as_it_is(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    target, done = read_target(save(tmp_path / "a.png", pixels), network(16, 24, 3))
    assert torch.equal(target, torch.from_numpy(pixels).permute(2, 0, 1))
    assert done == ""


def test_the_middle_is_cropped_and_resized(tmp_path: Path) -> None:
    pixels = np.zeros((64, 200, 3), np.uint8)
    pixels[:, 52:148] = 200  # the middle of the network's proportions
    target, done = read_target(save(tmp_path / "wide.png", pixels), network(16, 24, 3))
    assert target.shape == (3, 16, 24) and (target == 200).all()
    assert done == "cropped and resized from 200x64 to 24x16 px"


def test_the_right_proportions_are_only_resized(tmp_path: Path) -> None:
    _, done = read_target(save(tmp_path / "large.png", np.zeros((32, 48, 3), np.uint8)), network(16, 24, 3))
    assert done == "resized from 48x32 to 24x16 px"


def test_colours_follow_the_network(tmp_path: Path) -> None:
    colour = np.full((16, 24, 3), (255, 0, 0), np.uint8)
    target, done = read_target(save(tmp_path / "colour.png", colour), network(16, 24, 1))
    assert target.shape == (1, 16, 24) and (target == 76).all() and done == "turned grey"
    target, done = read_target(save(tmp_path / "grey.png", np.full((16, 24), 7, np.uint8)), network(16, 24, 3))
    assert target.shape == (3, 16, 24) and (target == 7).all() and done == "grey as RGB"


def test_transparent_parts_become_white(tmp_path: Path) -> None:
    target, done = read_target(save(tmp_path / "clear.png", np.zeros((16, 24, 4), np.uint8)), network(16, 24, 3))
    assert (target == 255).all() and done == "transparency on white"


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ValueError, match=r"--target=.*text.png: is not an image"):
        read_target(tmp_path / "text.png", network(16, 24, 3))
    with pytest.raises(ValueError, match=r"--target=.*gone.png: there is no such file"):
        read_target(tmp_path / "gone.png", network(16, 24, 3))
