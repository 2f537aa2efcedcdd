"""A folder or a zip file, read the same way."""

import functools
import os
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO


class FileTree:
    """The files of a folder or of a zip, by their names relative to its root, with / between the parts.

    May be pickled and used after a fork: each process opens the zip for itself, once.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if not self.path.exists():
            raise ValueError(f"{self.path} does not exist; give a folder or a zip file")
        self.is_zip = not self.path.is_dir()
        if self.is_zip and not zipfile.is_zipfile(self.path):
            raise ValueError(f"{self.path} is neither a folder nor a readable zip file")
        self._zip: zipfile.ZipFile | None = None
        self._zip_pid = 0

    def __reduce__(self) -> tuple[Callable[..., "FileTree"], tuple[object, ...]]:
        return _opened, (type(self), self.path, self.path.stat().st_mtime_ns)

    def names(self) -> list[str]:
        """Return all files, in no particular order; hidden ones and macOS's extra folder are left out."""
        names = self._zip_names() if self.is_zip else self._folder_names()
        return [name for name in names if not _is_hidden(name)]

    def exists(self, name: str) -> bool:
        """Tell whether there is a file of this name."""
        return name in self._archive().NameToInfo if self.is_zip else (self.path / name).is_file()

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading."""
        return self._archive().open(name) if self.is_zip else open(self.path / name, "rb")

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        with self.open(name) as file:
            return file.read()

    def crc(self, name: str) -> int:
        """Return the CRC-32 of a file's content; a zip has it in its table."""
        return self._archive().getinfo(name).CRC if self.is_zip else zlib.crc32(self.read(name))

    def _archive(self) -> zipfile.ZipFile:
        if self._zip is None or self._zip_pid != os.getpid():  # a handle from before a fork shares its file position
            self._zip, self._zip_pid = zipfile.ZipFile(self.path), os.getpid()
        return self._zip

    def _zip_names(self) -> list[str]:
        return [info.filename for info in self._archive().infolist() if not info.is_dir()]

    def _folder_names(self) -> list[str]:
        root = str(self.path)
        found = (os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names)
        return [os.path.relpath(file, root).replace(os.sep, "/") for file in found]


def natural_key(name: str) -> tuple[list[list[str | int]], str]:
    """Return a sort key that compares folder by folder and takes runs of digits as numbers."""
    parts = [re.split(r"([0-9]+)", part) for part in name.split("/")]
    return [[int(text) if index % 2 else text for index, text in enumerate(part)] for part in parts], name


@functools.lru_cache(maxsize=8)
def _opened(kind: type[FileTree], path: Path, mtime_ns: int) -> FileTree:
    """Return the tree that a pickle stands for: one for all pickles, as reading the table of a large zip takes long."""
    return kind(path)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
