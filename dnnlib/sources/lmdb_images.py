"""Images in an LMDB, the database that LSUN is published as; needs the package lmdb, which is not installed otherwise."""

import contextlib
import os
import struct
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from dnnlib.archive.zip_reader import MAX_FILE_BYTES, check_size
from dnnlib.sources.source_images import EncodedImage, ImageSource

DATA_FILE = "data.mdb"

_HEADER = struct.Struct("<16xIIQQI")  # of page 0: magic, version, address, map size, bytes of a page
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_PAGE_BYTES = [2**power for power in range(9, 17)]
_MIN_ENTRY_BYTES = 10  # of an image: its place in a page, and its key
_SHOWN = 80  # characters of a key in a message


@dataclass(frozen=True)
class LmdbImage(EncodedImage):
    """The value of a key, read when asked for."""

    folder: Path
    key: bytes
    label: None = None

    @property
    def origin(self) -> str:
        return f"{self.key.decode('ascii', 'backslashreplace')[:_SHOWN]} in {self.folder}"

    def content(self) -> bytes:
        with _environment(self.folder) as environment, environment.begin() as transaction:
            value = transaction.get(self.key)
        if value is None:
            raise ValueError(f"{self.origin} cannot be found by its key; copy the database again")
        check_size(len(value), MAX_FILE_BYTES)
        return value


def open_lmdb(folder: Path, max_images: int | None = None) -> ImageSource:
    """Return the images of an LMDB in the order of their keys, without labels; the first ones where not all are wanted.

    Raises:
        ValueError: lmdb is not installed, or data.mdb is no database, empty, cut off or otherwise damaged.
    """
    _lmdb()
    _check_file(folder / DATA_FILE)
    images = [LmdbImage(folder, key) for key in _keys_by_another_process(folder, max_images)]
    if not images:
        raise ValueError(f"{folder / DATA_FILE} is empty; download and unpack it again")
    return ImageSource(len(images), lambda: images, labelled=False)


def _keys_by_another_process(folder: Path, limit: int | None) -> list[bytes]:
    """Return the keys; at some damages of an index the library prints an assertion and ends its process."""
    with ProcessPoolExecutor(1, initializer=_close_stderr) as pool:
        try:
            return pool.submit(_keys, folder, limit).result()
        except BrokenExecutor as error:
            raise ValueError(f"{folder / DATA_FILE} is damaged: its index cannot be followed; copy it again") from error


def _close_stderr() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _keys(folder: Path, limit: int | None) -> list[bytes]:
    """Return the keys, of which only the pages of the index are read; the images lie elsewhere."""
    keys: list[bytes] = []
    database = folder / DATA_FILE
    with _environment(folder) as environment, environment.begin() as transaction:
        statistics = environment.stat()
        pages, entries = environment.info()["last_pgno"] + 1, statistics["entries"]
        size = database.stat().st_size
        if pages * statistics["psize"] > size or entries * _MIN_ENTRY_BYTES > size:
            raise ValueError(
                f"{database} is cut off: its {pages:,} pages do not fit into {size:,} bytes; copy it again"
            )
        for key in transaction.cursor().iternext(keys=True, values=False):
            if keys and key <= keys[-1]:  # and so no damaged index can lead round in circles
                raise ValueError(f"{database} is damaged: its keys are out of order; copy it again")
            keys.append(key)
            if len(keys) == limit:
                break
    return keys


def _check_file(database: Path) -> None:
    """Raise ValueError unless a file begins as an LMDB does: the library trusts what it finds."""
    with open(database, "rb") as file:
        header = file.read(_HEADER.size)
    magic, version, _, _, page_bytes = _HEADER.unpack(header.ljust(_HEADER.size, b"\0"))
    if (magic, version) != (_MAGIC, _VERSION) or page_bytes not in _PAGE_BYTES:
        raise ValueError(f"{database} is no LMDB database, or damaged; copy or unpack it again")


@contextlib.contextmanager
def _environment(folder: Path) -> Iterator[Any]:
    """Open a database, whose errors become a ValueError that names it.

    It is opened for every image, which costs little: one that is kept open must not be used after a fork, nor opened anew.
    """
    lmdb = _lmdb()
    try:
        environment = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, create=False)
        with contextlib.closing(environment):
            yield environment
    except lmdb.Error as error:
        raise ValueError(f"{folder / DATA_FILE} cannot be read: {error}; copy or unpack it again") from error


def _lmdb() -> ModuleType:
    try:
        import lmdb
    except ImportError as error:
        raise ValueError("reading an LMDB, as LSUN is published, needs one more package: pip install lmdb") from error
    return lmdb
