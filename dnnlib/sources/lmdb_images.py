"""Images in an LMDB, the format of LSUN; needs the optional package lmdb."""

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from dnnlib.archive.zip_reader import MAX_FILE_BYTES, check_size
from dnnlib.sources.source_images import EncodedImage, ImageSource

DATA_FILE = "data.mdb"


@dataclass(frozen=True)
class LmdbImage(EncodedImage):
    """The value of a key, read when asked for."""

    folder: Path
    key: bytes
    label: None = None

    @property
    def origin(self) -> str:
        return f"{self.key.decode('ascii', 'backslashreplace')[:80]} in {self.folder}"

    def content(self) -> bytes:
        with _environment(self.folder) as environment, environment.begin() as transaction:
            value = transaction.get(self.key)
        if value is None:
            raise ValueError(f"{self.origin} cannot be found by its key; copy the database again")
        check_size(len(value), MAX_FILE_BYTES)
        return value


def open_lmdb(folder: Path, max_images: int | None) -> ImageSource:
    """Return the images of an LMDB in the order of their keys, without labels; the first `max_images`.

    Raises ValueError: lmdb is not installed, or data.mdb is no database, empty, cut off or otherwise damaged.
    """
    _lmdb()
    images = [LmdbImage(folder, key) for key in _keys_by_another_process(folder, max_images)]
    if not images:
        raise ValueError(f"{folder / DATA_FILE} is empty; download and unpack it again")
    return ImageSource(len(images), lambda: images, labelled=False)


def _keys_by_another_process(folder: Path, limit: int | None) -> list[bytes]:
    """Return the keys; another process reads them, as lmdb aborts its process at some kinds of damage."""
    with ProcessPoolExecutor(1, initializer=_close_stderr) as pool:
        try:
            return pool.submit(_keys, folder, limit).result()
        except BrokenExecutor as error:
            raise ValueError(f"{folder / DATA_FILE} is damaged; copy it again") from error


def _close_stderr() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _keys(folder: Path, limit: int | None) -> list[bytes]:
    keys: list[bytes] = []
    database = folder / DATA_FILE
    with _environment(folder) as environment, environment.begin() as transaction:
        pages, size = environment.info()["last_pgno"] + 1, database.stat().st_size
        if pages * environment.stat()["psize"] > size:
            raise ValueError(f"{database} is cut off: its {pages:,} pages are more than {size:,} bytes; copy it again")
        for key in transaction.cursor().iternext(keys=True, values=False):
            if keys and key <= keys[-1]:  # a damaged index may be circular
                raise ValueError(f"{database} is damaged: its keys are out of order; copy it again")
            keys.append(key)
            if len(keys) == limit:
                break
    return keys


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
