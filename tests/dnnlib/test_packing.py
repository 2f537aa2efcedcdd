from pathlib import Path

import numpy as np
import pytest
from image_sets import write_pixels

from dnnlib.archive.zip_reader import ChangedError
from dnnlib.packing.packer import Packer
from dnnlib.packing.transform import ImageTransform
from dnnlib.sources.image_sources import open_source


def _write(dest: Path, value: int) -> Path:
    return write_pixels(dest, np.full((200, 8, 8, 3), value, np.uint8))


def _replace(source: Path) -> None:
    source.write_bytes(_write(source.parent / "other.zip", 100).read_bytes())


def _remove(source: Path) -> None:
    source.rename(source.parent / "elsewhere")


@pytest.mark.parametrize(
    ("name", "workers", "change", "message"),
    [
        ("in.zip", 1, _replace, r"in.zip has been replaced since it was opened"),
        ("in.zip", 2, _replace, r"in.zip has been replaced since it was opened"),
        ("in", 1, _remove, r"in is gone; put it back"),
    ],
)
def test_source_that_changes_meanwhile_is_an_end_and_not_many_bad_images(
    tmp_path, name, workers, change, message
) -> None:
    source = _write(tmp_path / name, 0)
    packer = Packer(open_source(str(source)), ImageTransform(), workers, skip_bad=True)
    layout = packer.find_layout()
    change(source)
    with pytest.raises(ChangedError, match=message):
        list(packer.encoded(layout))
