import os
import time
from pathlib import Path

import pytest

from dnnlib.files import NameTakenError, atomic_folder, atomic_write, filled_folder


def test_file_appears_only_at_the_end_with_the_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with atomic_write(path) as file:
        file.write(b"abc")
        assert not path.exists()
    assert path.read_bytes() == b"abc"
    assert os.listdir(tmp_path) == ["a.bin"]
    (tmp_path / "usual").touch()
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_text_is_utf8(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.txt", "w") as file:
        file.write("größe of caf\udce9")  # the name of a file that is not UTF-8
    assert (tmp_path / "a.txt").read_bytes() == "größe of caf\\udce9".encode()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_error_keeps_the_old_file_or_folder_and_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "a.bin").write_bytes(b"old")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "old").touch()
    with pytest.raises(error), atomic_write(tmp_path / "a.bin") as file:
        file.write(b"new")
        raise error
    with pytest.raises(error), atomic_folder(tmp_path / "data") as folder:
        (folder / "new").touch()
        raise error
    assert (tmp_path / "a.bin").read_bytes() == b"old" and os.listdir(tmp_path / "data") == ["old"]
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "data"]


def test_folder_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir()
    (path / "old").touch()
    with atomic_folder(path) as folder:
        (folder / "new").touch()
        assert os.listdir(path) == ["old"]
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["data"]


@pytest.mark.parametrize("has_links", [True, False])
def test_names_taken_meanwhile_are_not_replaced_if_so_asked(tmp_path: Path, monkeypatch, has_links: bool) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", lambda *_: os.stat(tmp_path / "nowhere"))
    with atomic_write(tmp_path / "b.bin", replace=False) as file:
        file.write(b"new")
    with pytest.raises(FileExistsError), atomic_write(tmp_path / "a.bin", replace=False):
        (tmp_path / "a.bin").write_bytes(b"old")
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "data", replace=False):
        (tmp_path / "data" / "old").mkdir(parents=True)
    assert (tmp_path / "a.bin").read_bytes() == b"old" and (tmp_path / "b.bin").read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "b.bin", "data"]


def test_a_folder_that_is_filled_keeps_its_place(tmp_path: Path) -> None:
    (tmp_path / ".content.1-0123abcd.tmp").mkdir()  # of a killed process
    _age(tmp_path / ".content.1-0123abcd.tmp")
    place = tmp_path.stat().st_ino
    with filled_folder(tmp_path) as folder:
        (folder / "a").mkdir()
        (folder / "b.txt").touch()
        assert [path.name[0] for path in tmp_path.iterdir()] == ["."]
    with pytest.raises(KeyError), filled_folder(tmp_path) as folder:
        (folder / "c").touch()
        raise KeyError
    with pytest.raises(NameTakenError), filled_folder(tmp_path) as folder:  # files move first, and back
        (folder / "c.txt").touch()
        (folder / "a").mkdir()
        (tmp_path / "a" / "taken").touch()
    assert sorted(os.listdir(tmp_path)) == ["a", "b.txt"] and tmp_path.stat().st_ino == place


def _age(path: Path) -> None:
    os.utime(path, (time.time() - 60, time.time() - 60))


@pytest.mark.parametrize("writer", [atomic_write, atomic_folder])
def test_what_a_killed_process_left_is_removed(tmp_path, writer) -> None:
    left_file, left_folder = tmp_path / ".data.1-0123abcd.tmp", tmp_path / ".data.2-0123abcd.tmp"
    left_file.touch()
    left_folder.mkdir()
    (left_folder / "image").touch()
    others = [".data.zip.1-0123abcd.tmp", ".other.1-0123abcd.tmp", ".data.1-0123abcd.old", ".data.tmp", "thesis"]
    for name in others:
        (tmp_path / name).touch()
    for path in tmp_path.iterdir():
        _age(path)
    with writer(tmp_path / "data"):
        assert not left_file.exists()
        assert not left_folder.exists()
        assert set(others) < set(os.listdir(tmp_path))  # .old is the only copy while there is no data
    with writer(tmp_path / "data"):
        assert not (tmp_path / ".data.1-0123abcd.old").exists()


@pytest.mark.parametrize("writer", [atomic_write, atomic_folder])
def test_what_a_running_process_writes_is_left_alone(tmp_path, writer) -> None:
    with writer(tmp_path / "data"):
        (ours,) = tmp_path.iterdir()
        _age(ours)
        (tmp_path / ".data.1-0123abcd.tmp").touch()  # so young that its process may be about to lock it
        with pytest.raises(KeyError), writer(tmp_path / "data"):
            raise KeyError
        assert sorted(tmp_path.iterdir()) == sorted([ours, tmp_path / ".data.1-0123abcd.tmp"])
