"""Images are written whole or not at all."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnnlib.images.writer import write_image


def _pixels(index: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (12, 8, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_png(tmp_path: Path, channels: int) -> None:
    write_image(tmp_path / "p.png", _pixels(0, channels))
    with Image.open(tmp_path / "p.png") as image:
        assert image.mode == ("RGB" if channels == 3 else "L")
        assert np.array_equal(np.asarray(image).reshape(12, 8, -1), _pixels(0, channels))


@pytest.mark.parametrize(("suffix", "name"), [("jpg", "JPEG"), ("webp", "WEBP")])
def test_lossy_formats(tmp_path: Path, suffix: str, name: str) -> None:
    flat = np.full((16, 16, 3), 77, np.uint8)
    write_image(tmp_path / f"p.{suffix}", flat)
    with Image.open(tmp_path / f"p.{suffix}") as image:
        assert image.format == name
        assert abs(np.asarray(image).astype(int) - flat).max() <= 2


def test_an_error_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"p\.png cannot be written: No space left"):
        write_image(tmp_path / "p.png", _pixels(0))
    assert not list(tmp_path.iterdir())
