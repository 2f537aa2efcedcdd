"""Scenes of several digits: as many as the label says, whole, apart, at any size."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import ndimage

import dataset_tool
from dnnlib.archive.image_tree import ImageTree
from dnnlib.sources.demo_scenes import MAX_DIGITS, scenes


@pytest.mark.parametrize(("width", "height"), [(64, 64), (128, 64)])
def test_scenes_show_as_many_digits_as_their_label_says(width: int, height: int) -> None:
    drawn = list(scenes("score", width, height, 40))
    counts = []
    for image, label in drawn:
        assert image.shape == (height, width, 3) and image.dtype == np.uint8
        luma = image @ np.array([0.299, 0.587, 0.114])
        counts.append(ndimage.label(luma > 75, np.ones((3, 3)))[1] - label - 1)
    assert [label for _, label in drawn] == [index % MAX_DIGITS for index in range(40)]
    assert np.mean(np.abs(counts)) < 0.3  # thin strokes break, crowded digits may touch


def test_prefix_is_stable_and_splits_differ() -> None:
    long = list(scenes("train", 32, 32, 12))
    for (image, _), (other, _) in zip(scenes("train", 32, 32, 5), long, strict=False):
        assert np.array_equal(image, other)
    assert not np.array_equal(next(scenes("score", 32, 32, 1))[0], long[0][0])


def test_packed_by_one_command(tmp_path: Path) -> None:
    options = ["--source=demo", "--scenes", "--width=96", "--height=64", "--max-images=6", "--workers=1"]
    result = CliRunner().invoke(dataset_tool.main, [*options, f"--dest={tmp_path / 'scenes.zip'}"])
    assert result.exit_code == 0, result.output
    assert "6 images of 96x64 RGB" in result.output and "5 classes (1 digit, 2 digits" in result.output
    assert len(ImageTree(tmp_path / "scenes.zip").image_names()) == 6
