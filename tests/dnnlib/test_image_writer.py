"""Images are written whole or not at all."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnnlib.images.writer import write_image


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("suffix", "tolerance"), [("png", 0), ("jpg", 2), ("webp", 2)])
def test_formats(tmp_path: Path, suffix: str, channels: int, tolerance: int) -> None:
    smooth = np.arange(64, dtype=np.uint8).reshape(8, 8, 1).repeat(channels, axis=2)
    write_image(tmp_path / f"p.{suffix}", smooth)
    with Image.open(tmp_path / f"p.{suffix}") as image:
        assert image.format == {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[suffix]
        assert image.mode == ("L" if channels == 1 and suffix != "webp" else "RGB")
        assert abs(np.asarray(image.convert("RGB")).astype(int) - smooth).max() <= tolerance


def test_an_error_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"p\.png cannot be written: No space left"):
        write_image(tmp_path / "p.png", np.zeros((8, 8, 3), np.uint8))
    assert not list(tmp_path.iterdir())
