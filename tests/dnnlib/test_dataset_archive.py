import json
import os
import zipfile
from pathlib import Path

import pytest

from dnnlib.archive.file_tree import FileTree
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


def test_clutter_of_file_managers_is_no_part_of_a_data_set(tmp_path: Path) -> None:
    _write(tmp_path / "set", 1)
    for name in (".DS_Store", "00000/.DS_Store", "00000/Thumbs.db"):
        (tmp_path / "set" / name).touch()
    _write(tmp_path / "set", 2, force=True)
    assert sorted(path.name for path in (tmp_path / "set").rglob("*.*")) == [
        "dataset.json",
        "img00000000.png",
        "img00000001.png",
    ]


def test_force_never_removes_other_files(tmp_path: Path) -> None:
    for name in ("home/thesis.txt", "ffhq/00000/00000.png", "unlabelled/00000/img00000000.png", "file"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.zip").mkdir()
    for name in ("notes", "link"):
        _write(tmp_path / name, 1)
    (tmp_path / "notes" / "00000" / "notes.txt").touch()
    (tmp_path / "link" / "00001").symlink_to(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    messages = {
        "home": "thesis.txt, which is no part of a data set",
        "ffhq": "00000/00000.png, which is no part",
        "notes": "00000/notes.txt, which is no part",
        "link": "00001, which is no part",
        "unlabelled": "has no dataset.json, so it is no data set",
        "file": "is a file",
        "folder.zip": "is a folder",
    }
    for name, message in messages.items():
        with pytest.raises(ValueError, match=message):
            _write(tmp_path / name, 1, force=True)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["d.zip", "d", "empty"])
def test_what_appears_during_packing_is_not_replaced_without_force(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with (
        pytest.raises(ValueError, match=r"give another name, or --force to replace it"),
        write_dataset(tmp_path / name) as ours,
    ):
        ours.add(b"ours", None)
        _write(tmp_path / name, 2)
    root = zipfile.Path(tmp_path / name) if name == "d.zip" else tmp_path / name
    assert (root / "00000" / "img00000000.png").read_bytes() == b"png0"
    assert sorted(os.listdir(tmp_path)) == sorted({name, "empty"})


def test_files_that_appear_during_packing_are_kept_even_with_force(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no part of a data set"), write_dataset(tmp_path / "d", force=True) as ours:
        ours.add(b"ours", None)
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "thesis.txt").touch()
    assert os.listdir(tmp_path) == ["d"] and os.listdir(tmp_path / "d") == ["thesis.txt"]


@pytest.mark.parametrize("name", ["d.zip", "d"])
def test_links_are_followed(tmp_path: Path, name: str) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    _write(tmp_path / name, 3)
    _write(tmp_path / name, 1, force=True)
    assert (tmp_path / name).is_symlink() and os.listdir(tmp_path / "disk") == [name]
    FileTree(tmp_path / "disk" / name).read("00000/img00000000.png")


def test_an_empty_folder_is_filled_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a mount point, in a write-protected folder, the current folder, or one that a link leads to."""
    folder = tmp_path / "protected" / "own"
    folder.mkdir(parents=True)
    (folder / ".hidden").touch()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path / "protected")
    place = folder.stat().st_ino
    _write(Path("."), 3)
    assert folder.stat().st_ino == place
    assert sorted(os.listdir()) == [".hidden", "00000", "dataset.json"]


def test_a_data_set_that_cannot_be_replaced_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "d", 1)
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda path, _: path != tmp_path)
        with pytest.raises(ValueError, match="is write-protected; give another place"):
            check_dest(tmp_path / "d", force=True)
    with monkeypatch.context() as patched:
        patched.setattr(os.path, "ismount", lambda path: path == tmp_path / "d")
        with pytest.raises(ValueError, match="is a mount point, which cannot be replaced; empty it first"):
            check_dest(tmp_path / "d", force=True)
    monkeypatch.chdir(tmp_path / "d" / "00000")
    with pytest.raises(ValueError, match=r"is the current folder, .* change to another one"):
        check_dest(Path(".."), force=True)
