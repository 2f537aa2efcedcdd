from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from dnnlib.archive.writer import write_dataset
from dnnlib.archive.zip_reader import ChangedError
from dnnlib.images.codec import encode_png
from dnnlib.packing.packer import Packer, Recipe, Result
from dnnlib.packing.transform import ImageTransform
from dnnlib.sources.image_sources import open_source


def _write(dest: Path, value: int) -> Path:
    with write_dataset(dest) as writer:
        for index in range(200):
            writer.add(encode_png(np.full((8, 8, 3), value + index % 2, np.uint8)), None)
    return dest


def _quiet(items: Iterable[Result], total: int, title: str) -> Iterable[Result]:
    return items


def _packer(source: Path, workers: int) -> Packer:
    return Packer(open_source(str(source)), Recipe(ImageTransform(), None), workers, True, _quiet)


@pytest.mark.parametrize("workers", [1, 2])
def test_source_that_is_replaced_meanwhile_is_an_end_and_not_many_bad_images(tmp_path: Path, workers: int) -> None:
    source = _write(tmp_path / "in.zip", 0)
    packer = _packer(source, workers)
    layout = packer.find_layout()
    source.write_bytes(_write(tmp_path / "other.zip", 100).read_bytes())
    with pytest.raises(ChangedError, match=r"in.zip has been replaced since it was opened"):
        list(packer.encoded(layout))


def test_source_that_is_removed_meanwhile_is_an_end_and_not_many_bad_images(tmp_path: Path) -> None:
    source = _write(tmp_path / "in", 0)
    packer = _packer(source, 1)
    layout = packer.find_layout()
    encoded = packer.encoded(layout)
    next(iter(encoded))
    source.rename(tmp_path / "elsewhere")
    with pytest.raises(ChangedError, match="in is gone; put it back"):
        list(encoded)
