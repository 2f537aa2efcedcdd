"""The files in a tar, found by the last part of their names; no more is read than what they declare and a limit allows."""

import bz2
import contextlib
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

from dnnlib.archive.zip_reader import check_size, describe_error

READ_ERRORS = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)

_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}  # by the first bytes
_MAX_READ = 2**24  # bytes at once: tarfile reads a member's long name whole, however long it claims to be


class TarFiles:
    """The ordinary files of a tar. Each opening unpacks it from the start: read large ones from their first byte on."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with _opened(self.path) as archive:
                self._members = {member.name.rsplit("/", 1)[-1]: member for member in archive if member.isreg()}
        except READ_ERRORS as error:
            raise ValueError(f"{path} is damaged ({describe_error(error)}); download it again") from error

    def exists(self, name: str) -> bool:
        """Tell whether there is a file of this name, whatever its folder."""
        return name in self._members

    def origin(self, name: str) -> str:
        """Return what to call a file in a message."""
        return f"{name} in {self.path}"

    def sizes(self, names: Sequence[str]) -> list[int]:
        """Return how many bytes each file declares."""
        return [self._members[name].size for name in names]

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file, to be read from its start on."""
        with _opened(self.path) as archive:
            file = archive.extractfile(self._members[name])
            assert file is not None  # it is an ordinary file
            yield file

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return the content of a file; ValueError if it is larger than so many bytes."""
        check_size(self._members[name].size, max_bytes)
        with self.open(name) as file:
            parts = iter(lambda: file.read(_MAX_READ), b"")
            return b"".join(parts)

    @contextlib.contextmanager
    def named_errors(self, name: str) -> Iterator[None]:
        """Turn whatever goes wrong when this file is read into a ValueError that names it."""
        try:
            yield
        except ValueError as error:
            raise ValueError(f"{self.origin(name)} {error}") from error
        except READ_ERRORS as error:
            raise ValueError(f"{self.origin(name)} is damaged ({describe_error(error)}); download it again") from error


def is_tar(path: Path) -> bool:
    """Tell whether a file is a tar, compressed or not."""
    try:
        with _opened(path):
            return True
    except READ_ERRORS:
        return False


class _Bounded:
    """What tarfile reads from: refuses to read much at once, as it would for a member whose name claims to be endless."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, num_bytes: int) -> bytes:
        if not 0 <= num_bytes <= _MAX_READ:
            raise tarfile.ReadError(f"the header of a member declares {num_bytes:,} bytes")
        return self._file.read(num_bytes)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    with open(path, "rb") as file:
        start = file.read(6)
    opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), open)
    with opener(path, "rb") as file, tarfile.open(fileobj=cast(IO[bytes], _Bounded(file)), mode="r:") as archive:
        yield archive
