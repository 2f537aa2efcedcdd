import os
from pathlib import Path

import pytest

from dnnlib.files import atomic_folder, atomic_write


def test_file_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with atomic_write(path) as file:
        file.write(b"abc")
        assert not path.exists()
    assert path.read_bytes() == b"abc"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_text_is_utf8(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.txt", "w") as file:
        file.write("größe")
    assert (tmp_path / "a.txt").read_bytes() == "größe".encode()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_error_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_write(path) as file:
        file.write(b"new")
        raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    with atomic_write(tmp_path / "atomic"):
        pass
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mode='a'"), atomic_write(tmp_path / "a", "a"):
        pass


def test_folder_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir()
    (path / "old").touch()
    with atomic_folder(path) as folder:
        (folder / "new").touch()
        assert os.listdir(path) == ["old"]
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["data"]


def test_folder_error_keeps_the_old_one_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(ValueError, match="stop"), atomic_folder(path) as folder:
        (folder / "new").touch()
        raise ValueError("stop")
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["data"]
