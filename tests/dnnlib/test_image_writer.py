"""Images written by threads: whole, all of them, and never silently missing."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnnlib.images.writer import IMAGES_AHEAD, ImageWriter, write_image


def _pixels(index: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (12, 8, channels), dtype=np.uint8)


@pytest.mark.parametrize("threads", [1, 4])
def test_all_are_written(tmp_path: Path, threads: int) -> None:
    with ImageWriter(threads) as writer:
        for index in range(100):
            writer.add(tmp_path / f"{index}.png", _pixels(index, 1 + index % 2 * 2))
    assert len(list(tmp_path.iterdir())) == 100
    for index in range(100):
        with Image.open(tmp_path / f"{index}.png") as image:
            assert image.mode == ("RGB" if index % 2 else "L")
            assert np.array_equal(np.asarray(image).reshape(12, 8, -1), _pixels(index, 1 + index % 2 * 2))


@pytest.mark.parametrize(("suffix", "name"), [("jpg", "JPEG"), ("webp", "WEBP")])
def test_lossy_formats(tmp_path: Path, suffix: str, name: str) -> None:
    flat = np.full((16, 16, 3), 77, np.uint8)
    write_image(tmp_path / f"p.{suffix}", flat)
    with Image.open(tmp_path / f"p.{suffix}") as image:
        assert image.format == name
        assert abs(np.asarray(image).astype(int) - flat).max() <= 2


def test_error_at_the_end_is_raised_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"p\.png cannot be written: No space left"), ImageWriter(2) as writer:
        writer.add(tmp_path / "p.png", _pixels(0))
    assert not list(tmp_path.iterdir())


def test_error_stops_whoever_makes_images(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"gone.0\.png cannot be written: No such file"), ImageWriter(2) as writer:
        for index in range(2 * IMAGES_AHEAD + 1):
            writer.add(tmp_path / "gone" / f"{index}.png", _pixels(0))
        pytest.fail("went on although nothing could be written")
