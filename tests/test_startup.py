"""A start opens the data set once, and reads no header of an image if dataset.json has `image_format`."""

import collections
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from image_sets import noise, write_images
from tiny_runs import train_script

from dnnlib.archive.image_tree import ImageTree
from dnnlib.archive.label_table import KEY
from dnnlib.archive.zip_reader import ZipReader
from dnnlib.images.codec import Layout, encode_png
from training.data.dataset import ImageDataset, ImageFiles
from training.data.stream import DataError, stream

COUNT = 24


def packed(dest: Path, declared: Layout | None, *, size: int = 32, grey_at: int | None = None) -> Path:
    """A data set that declares a layout, which may be wrong, or none."""
    images = (noise(index, size, size, 1 if index == grey_at else 3) for index in range(COUNT))
    return write_images(dest, images, layout=declared)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each step of opening a data set was done."""
    found: Counter[str] = collections.Counter()

    def count(owner: type, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            found[f"{owner.__name__}.{name}"] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    count(ImageTree, "__init__")
    count(ImageTree, "image_names")
    count(ImageTree, "layout")
    count(ImageTree, "crcs")
    count(ZipReader, "_open")
    return found


def train_one_step(data: Path, outdir: Path, *options: str) -> Result:
    return train_script(data, outdir, "--g_dict=16,16,16", "--num_layers=1,1,1", "--cond=1", *options)


OPENED_ONCE = {
    "ImageTree.__init__": 1,
    "ImageTree.image_names": 1,
    "ImageTree.crcs": 1,  # the content hash
    "ZipReader._open": 1,
}


@pytest.mark.parametrize("declared", [Layout(32, 32, 3), None])
def test_training_opens_a_set_once_and_reads_no_header_that_is_declared(counts, tmp_path, declared) -> None:
    data = packed(tmp_path / "data.zip", declared)
    headers = {} if declared else {"ImageTree.layout": COUNT}
    for option in ("--kimg=0.008", "--resume=latest"):
        result = train_one_step(data, tmp_path / "runs", option)
        assert result.exit_code == 0, result.output
        assert counts == OPENED_ONCE | headers
        counts.clear()
    assert "Resuming" in result.output


@pytest.mark.parametrize("name", ["data", "data.zip"])
def test_wrong_note_is_an_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    data = packed(tmp_path / name, Layout(32, 32, 3), size=64)
    result = train_one_step(data, tmp_path / "runs")
    assert result.exit_code == 1
    assert f"in {data} is 64x64, not 32x32 RGB" in result.output
    assert f"dataset.json in {data} declares 32x32 RGB" in result.output


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_of_another_kind_is_an_error(tmp_path: Path, workers: int) -> None:
    dataset = ImageDataset(packed(tmp_path / "data.zip", Layout(32, 32, 3), grey_at=5))
    batches = stream(dataset, seed=0, start_nimg=0, batch_size=COUNT, micro_batch=COUNT, num_workers=workers)
    with pytest.raises(DataError, match=r"img00000005.png in .* is 32x32 grey once decoded, not 32x32 RGB.* declares"):
        next(batches)
    with pytest.raises(ValueError, match=r"img00000005.png in .* is 32x32 grey"):
        dataset.image(5)
    undeclared = ImageDataset(packed(tmp_path / "mixed.zip", None, grey_at=5))
    assert undeclared.image(5).shape == (3, 32, 32)  # read as RGB


def test_note_of_another_count_is_ignored(counts: Counter[str], tmp_path: Path) -> None:
    data = packed(tmp_path / "data", Layout(32, 32, 3))
    (data / "00000" / "more.png").write_bytes(encode_png(noise(0, 16, 16)))
    with pytest.raises(ValueError, match=r"more.png in .* is 16x16"):
        ImageDataset(data)
    (data / "00000" / "more.png").unlink()
    (data / "00000" / "img00000003.png").unlink()
    counts.clear()
    assert len(ImageDataset(data)) == COUNT - 1
    assert counts["ImageTree.layout"] == COUNT - 1


@pytest.mark.parametrize(
    "note",
    [None, {"width": 32}, *({"width": 32, "height": 32, "channels": 3, "bits": 8, "count": COUNT} | wrong
     for wrong in ({"width": 0}, {"height": "32"}, {"channels": 2}, {"bits": 16}))],
)  # fmt: skip
def test_damaged_note_is_named(tmp_path: Path, note: object) -> None:
    data = packed(tmp_path / "data", None)
    content = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(content | {KEY: note}))
    with pytest.raises(ValueError, match=rf'dataset.json in {data}: "{KEY}" is .* remove it'):
        ImageFiles(data)
