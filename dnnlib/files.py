"""Files and folders that appear complete or not at all; hashes of files."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

if sys.platform != "win32":
    import fcntl

_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace"}  # names of files may not be UTF-8
_CONTENT = "content"  # of a folder, for temporary names inside it
_SETTLED_SEC = 1.0  # a temporary file as young as this may be one that its process is about to lock


class NameTakenError(FileExistsError):
    """What was written could not take its name, which another program has taken meanwhile."""


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb", replace: bool = True) -> Iterator[IO[Any]]:
    """Open a file that takes its name only when the block ends without an error.

    Until then it lies under a hidden temporary name in the same folder; an error removes it and leaves an older file
    of the same name as it was. What a killed process left of this file is removed by the next one to write it.

    Args:
        path: The final name; the folder must exist.
        mode: "wb" for bytes, "w" for UTF-8 text.
        replace: An older file of this name; otherwise NameTakenError if there is one at the end.
    """
    path = Path(path)
    _remove_stale(path)
    temporary = temporary_name(path)
    try:
        # "x" and not a tempfile: those are readable by their owner only, whatever the umask says.
        with open(temporary, mode.replace("w", "x"), **_TEXT if mode == "w" else {}) as file:
            _lock(file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path) if replace else _rename_new_file(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_folder(path: str | Path, replace: bool = True) -> Iterator[Path]:
    """Yield a folder that takes the name `path` when the block ends without an error.

    Unless it may replace one that is there by then, NameTakenError if that is not empty.
    """
    path = Path(path)
    _remove_stale(path)
    temporary = temporary_name(path)
    replaced = temporary.with_suffix(".old")
    temporary.mkdir()
    try:
        with _locked(temporary):
            yield temporary
            if replace and path.exists():
                path.rename(replaced)
            _rename_new_folder(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


@contextlib.contextmanager
def filled_folder(path: Path) -> Iterator[Path]:
    """Yield a folder whose content moves to the one at `path` when the block ends without an error.

    That one keeps its place, so it may be a mount point or lie in a write-protected folder. NameTakenError if a name
    inside is taken by then. An error takes away what has moved.
    """
    _remove_stale(path / _CONTENT)
    temporary = temporary_name(path / _CONTENT)
    temporary.mkdir()
    moved: list[Path] = []
    try:
        with _locked(temporary):
            yield temporary
            # Files first: of two programs, only one can place them, and a kill does not leave folders alone.
            for item in sorted(temporary.iterdir(), key=lambda item: (item.is_dir(), item.name)):
                rename = _rename_new_folder if item.is_dir() else _rename_new_file
                rename(item, path / item.name)
                moved.append(path / item.name)
    except BaseException:
        for item in moved:
            shutil.rmtree(item, ignore_errors=True) if item.is_dir() else item.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def temporary_name(path: Path) -> Path:
    """Return a hidden, unused name beside `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _rename_new_folder(temporary: Path, path: Path) -> None:
    """Rename a folder; NameTakenError if the new name is taken, but by an empty folder."""
    try:
        temporary.rename(path)
    except OSError as error:
        if path.exists():
            raise _name_taken(path) from error
        raise


def _rename_new_file(temporary: Path, path: Path) -> None:
    """Rename a file; NameTakenError if the new name is taken, even since a moment ago."""
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        if not os.path.samefile(temporary, path):  # else NFS has lost its first answer
            raise _name_taken(path) from error
    except OSError:  # a disk without hard links
        _replace_new_file(temporary, path)
        return
    temporary.unlink()


def _replace_new_file(temporary: Path, path: Path) -> None:
    """Rename a file by way of an empty one of the new name."""
    try:
        open(path, "x").close()
    except FileExistsError as error:
        raise _name_taken(path) from error
    try:
        os.replace(temporary, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _name_taken(path: Path) -> NameTakenError:
    return NameTakenError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _remove_stale(path: Path) -> None:
    """Remove temporary files of `path` that no running process writes."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9]+-[0-9a-f]{{8}}\.(tmp|old)")
    for name in os.listdir(path.parent):
        match = pattern.fullmatch(name)
        if match and (match[1] == "tmp" or path.exists()):  # else the older folder: all that is left of it
            with contextlib.suppress(OSError):  # another process was faster, or it is not ours
                _remove_unused(path.parent / name)


def _remove_unused(path: Path) -> None:
    if time.time() - path.stat().st_mtime < _SETTLED_SEC:
        return
    with _locked(path) as is_unused:
        if is_unused:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _lock(descriptor: int) -> bool:
    """Lock a file or folder until it is closed or its process ends; False if another holds it, or locks do not work."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Yield whether the file or folder could be locked."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)
