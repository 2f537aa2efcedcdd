import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from dnnlib.sources.image_sources import SourceOptions, open_source
from dnnlib.sources.source_images import ImageSource

SIDE = 96
COUNTS = {"train": 3, "test": 2, "unlabeled": 4}
NAMES = b"airplane\nbird\ncar\n"


def _pixels(part: str, index: int) -> np.ndarray:
    """Return an image whose values tell row, column and channel apart, uint8 [height, width, channels]."""
    y, x, c = np.meshgrid(np.arange(SIDE), np.arange(SIDE), np.arange(3), indexing="ij")
    return (y + 2 * x + 50 * c + 7 * index + 31 * list(COUNTS).index(part)).astype(np.uint8)


def _members(**changes: bytes) -> dict[str, bytes]:
    """Return the published files, with few images: channel after channel, column after column."""
    members = {"class_names.txt": NAMES, "train_y.bin": bytes([1, 3, 2]), "test_y.bin": bytes([2, 2])}
    for part, count in COUNTS.items():
        planes = [_pixels(part, index)[:, x, c] for index in range(count) for c in range(3) for x in range(SIDE)]
        members[f"{part}_X.bin"] = b"".join(map(bytes, planes))
    names = {name.partition(".")[0]: name for name in members}
    return members | {names[key]: content for key, content in changes.items()}


def _folder(path: Path, members: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, content in members.items():
        (path / name).write_bytes(content)
    return path


def _tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"stl10_binary/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(params=["folder", "tar"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "folder":
        return _folder(tmp_path / "stl10_binary", _members())
    return _tar(tmp_path / "stl10_binary.tar.gz", _members())


def _open(source: Path, split: str | None = None, max_images: int | None = None) -> ImageSource:
    return open_source(str(source), SourceOptions(split=split, max_images=max_images))


def _assert_images(source: ImageSource, expected: list[tuple[str, int]]) -> None:
    images = list(source.images())
    assert source.count == len(images) == len(expected)
    for image, (part, index) in zip(images, expected, strict=True):
        assert np.array_equal(image.pixels(3, None), _pixels(part, index)), image.origin


def test_labelled_and_unlabelled_images_without_labels_are_the_default(source: Path) -> None:
    source = _open(source)
    _assert_images(source, [("train", i) for i in range(3)] + [("unlabeled", i) for i in range(4)])
    assert not source.labelled
    assert source.class_names == ()
    assert all(image.label is None for image in source.images())


@pytest.mark.parametrize(("split", "labels"), [("train", [0, 2, 1]), ("test", [1, 1])])
def test_labelled_parts_have_classes_counted_from_0(source: Path, split: str, labels: list[int]) -> None:
    source = _open(source, split)
    _assert_images(source, [(split, index) for index in range(COUNTS[split])])
    assert [image.label for image in source.images()] == labels
    assert source.class_names == ("airplane", "bird", "car")


def test_unlabelled_part_alone_and_the_first_images_only(source: Path) -> None:
    _assert_images(_open(source, "unlabeled"), [("unlabeled", index) for index in range(4)])
    _assert_images(_open(source, "train+unlabeled", 4), [*(("train", i) for i in range(3)), ("unlabeled", 0)])


@pytest.mark.parametrize(
    ("changes", "split", "message"),
    [
        (
            {"train_X": bytes(30_000)},
            None,
            "train_X.bin in .* has 30,000 bytes, which are not whole images of 27,648",
        ),
        ({"unlabeled_X": b""}, None, "unlabeled_X.bin in .* has 0 bytes"),
        ({"train_y": bytes([1, 2])}, "train", "train_y.bin in .* does not hold one label from 1 on for each of 3 pict"),
        ({"train_y": bytes([0, 1, 2])}, "train", "train_y.bin in .* does not hold one label from 1 on"),
        ({"train_y": bytes([1, 2, 9])}, "train", "has a label 9, but 3 names in class_names.txt"),
        ({"class_names": bytes(70_000)}, "train", "class_names.txt in .* has 68.4 KiB, more than the 64.0 KiB"),
        ({}, "score", "--split=score is unknown; STL-10 has train, test, unlabeled, train\\+unlabeled"),
    ],
)
@pytest.mark.parametrize("make", [_folder, _tar])
def test_damaged_sets_are_refused(
    tmp_path: Path, make: object, changes: dict[str, bytes], split: str | None, message: str
) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        _open(make(tmp_path / "stl10_binary", _members(**changes)), split)


def test_missing_files_are_named(tmp_path: Path) -> None:
    members = _members()
    del members["unlabeled_X.bin"], members["test_y.bin"]
    folder = _folder(tmp_path / "set", members)
    with pytest.raises(ValueError, match=r"set has no unlabeled_X.bin; unpack or download .* or give --split"):
        _open(folder)
    with pytest.raises(ValueError, match=r"set has no test_y.bin with the labels"):
        _open(folder, "test")


def test_file_that_shrinks_while_it_is_read_is_named(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "set", _members())
    images = _open(folder, "unlabeled")
    (folder / "unlabeled_X.bin").write_bytes(_members()["unlabeled_X.bin"][:60_000])
    with pytest.raises(ValueError, match=r"unlabeled_X.bin in .*set ends after 2 of its 4 images"):
        list(images.images())
