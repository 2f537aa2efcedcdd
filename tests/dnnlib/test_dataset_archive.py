import json
import os
import zipfile
from pathlib import Path

import pytest

from dnnlib.archive.writer import check_dest, write_dataset


def _write(dest: Path, count: int, labelled: bool = True, force: bool = False) -> None:
    with write_dataset(dest, ["a", "b"] if labelled else [], force) as writer:
        for index in range(count):
            writer.add(b"png%d" % index, index % 2 if labelled else None)


def test_zip_layout(tmp_path: Path) -> None:
    _write(tmp_path / "new" / "d.zip", 1001)
    with zipfile.ZipFile(tmp_path / "new" / "d.zip") as archive:
        assert archive.read("00001/img00001000.png") == b"png1000"
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        content = json.loads(archive.read("dataset.json"))
    assert content["class_names"] == ["a", "b"]
    assert content["labels"][:2] == [["00000/img00000000.png", 0], ["00000/img00000001.png", 1]]
    assert len(content["labels"]) == 1001


def test_folder_holds_the_same(tmp_path: Path) -> None:
    _write(tmp_path / "d.zip", 3)
    _write(tmp_path / "d", 3)
    with zipfile.ZipFile(tmp_path / "d.zip") as archive:
        for name in archive.namelist():
            assert (tmp_path / "d" / name).read_bytes() == archive.read(name)
    assert sum(path.is_file() for path in (tmp_path / "d").rglob("*")) == 4


@pytest.mark.parametrize("name", ["d.zip", "d"])
def test_half_labelled_is_refused_and_an_error_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="1 of 2 images"), write_dataset(tmp_path / name) as writer:
        writer.add(b"png", 1)
        writer.add(b"png", None)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["d.zip", "d"])
def test_existing_dataset_needs_force(tmp_path: Path, name: str) -> None:
    _write(tmp_path / name, 3)
    with pytest.raises(ValueError, match="--force to replace"):
        _write(tmp_path / name, 1)
    _write(tmp_path / name, 1, force=True)
    with pytest.raises(ValueError, match="--force"):
        check_dest(tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    if name == "d":
        assert os.listdir(tmp_path / "d" / "00000") == ["img00000000.png"]


def test_force_never_removes_other_files(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").touch()
    (tmp_path / "file").touch()
    (tmp_path / "folder.zip").mkdir()
    for name, message in [("home", "no part of a data set"), ("file", "is a file"), ("folder.zip", "is a folder")]:
        with pytest.raises(ValueError, match=message):
            _write(tmp_path / name, 1, force=True)
    assert (tmp_path / "home" / "thesis.txt").exists()
