"""A folder or a zip file, read the same way."""

import contextlib
import functools
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NoReturn

from dnnlib.text import format_bytes

_MAX_MEMBER_BYTES = 2**30  # more in one member of a zip is a mistake or an attack
_READ_ERRORS = (OSError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, lzma.LZMAError)


class FileTree:
    """The files of a folder or of a zip, by their names relative to its root, with / between the parts.

    May be pickled and used after a fork: each process opens the zip for itself, once.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if not self.path.exists():
            raise ValueError(f"{self.path} does not exist; give a folder or a zip file")
        if not os.access(self.path, os.R_OK):
            raise ValueError(f"{self.path} cannot be read: permission denied; make it readable with chmod")
        self.is_zip = not self.path.is_dir()
        if self.is_zip and not zipfile.is_zipfile(self.path):
            raise ValueError(f"{self.path} is neither a folder nor a readable zip file; give one of the two")
        self._zip: zipfile.ZipFile | None = None
        self._zip_pid = 0

    def __reduce__(self) -> tuple[Callable[..., "FileTree"], tuple[object, ...]]:
        return _opened, (type(self), self.path, self.path.stat().st_mtime_ns)

    def names(self) -> list[str]:
        """Return all files, in no particular order; hidden ones and macOS's extra folder are left out.

        Raises:
            ValueError: A folder in it cannot be read, or a zip has a member with an absolute path or "..".
        """
        names = self._zip_names() if self.is_zip else self._folder_names()
        return [name for name in names if not _is_hidden(name)]

    def origin(self, name: str) -> str:
        """Return what to call a file in a message."""
        return f"{name} in {self.path}"

    @contextlib.contextmanager
    def named_errors(self, name: str) -> Iterator[None]:
        """Turn whatever goes wrong when this file is read into a ValueError that names it."""
        try:
            yield
        except (ValueError, *_READ_ERRORS) as error:
            reason = str(error) if isinstance(error, ValueError) else f"cannot be read: {_describe(error)}"
            raise ValueError(f"{self.origin(name)} {reason}") from error

    def exists(self, name: str) -> bool:
        """Tell whether there is a file of this name."""
        return name in self._archive().NameToInfo if self.is_zip else (self.path / name).is_file()

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading."""
        if not self.is_zip:
            return open(self.path / name, "rb")
        size = self._archive().getinfo(name).file_size
        if size > _MAX_MEMBER_BYTES:
            raise ValueError(
                f"would unpack to {format_bytes(size)}, more than the {format_bytes(_MAX_MEMBER_BYTES)} that one file "
                f"in a zip may have"
            )
        return self._archive().open(name)

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        with self.open(name) as file:
            return file.read()

    def crc(self, name: str) -> int:
        """Return the CRC-32 of a file's content; a zip has it in its table."""
        return self._archive().getinfo(name).CRC if self.is_zip else zlib.crc32(self.read(name))

    def _archive(self) -> zipfile.ZipFile:
        if self._zip is None or self._zip_pid != os.getpid():  # a handle from before a fork shares its file position
            try:
                self._zip, self._zip_pid = zipfile.ZipFile(self.path), os.getpid()
            except _READ_ERRORS as error:
                raise ValueError(f"{self.path} is a damaged zip file ({error}); copy or download it again") from error
        return self._zip

    def _zip_names(self) -> list[str]:
        members = self._archive().NameToInfo  # of two members of one name, the last
        for name in members:
            if _leads_outside(name):
                raise ValueError(
                    f"{self.path} has a member named {name!r}: absolute paths and .. are refused; pack the zip again "
                    f"with paths relative to one folder"
                )
        return [name for name, info in members.items() if not info.is_dir()]

    def _folder_names(self) -> list[str]:
        root = str(self.path)
        files = []
        for folder, subfolders, names in os.walk(root, onerror=_refuse_folder, followlinks=True):
            subfolders[:] = [name for name in subfolders if not _leads_back(folder, name)]
            files += [os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/") for name in names]
        return files


def natural_key(name: str) -> tuple[list[list[str | int]], str]:
    """Return a sort key that compares folder by folder and takes runs of digits as numbers."""
    parts = [re.split(r"([0-9]+)", part) for part in name.split("/")]
    return [[int(text) if index % 2 else text for index, text in enumerate(part)] for part in parts], name


@functools.lru_cache(maxsize=8)
def _opened(kind: type[FileTree], path: Path, mtime_ns: int) -> FileTree:
    """Return the tree that a pickle stands for: one for all pickles, as reading the table of a large zip takes long."""
    return kind(path)


def _describe(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _refuse_folder(error: OSError) -> NoReturn:
    raise ValueError(f"{error.filename} cannot be read: {error.strerror}; make it readable, or move it away") from error


def _is_hidden(name: str) -> bool:
    return any((part.startswith(".") and part != ".") or part == "__MACOSX" for part in name.split("/"))


def _leads_outside(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return parts[0] == "" or re.fullmatch("[A-Za-z]:", parts[0]) is not None or ".." in parts


def _leads_back(folder: str, name: str) -> bool:
    """Tell whether a sub-folder is a link to a folder that it lies in."""
    path = os.path.join(folder, name)
    if not os.path.islink(path):
        return False
    return os.path.join(os.path.realpath(folder), "").startswith(os.path.join(os.path.realpath(path), ""))
