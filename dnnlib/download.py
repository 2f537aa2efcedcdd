"""Fetches a file of known content: it takes its name when it is whole and verified; a broken transfer goes on later."""

import contextlib
import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_TIMEOUT_SEC = 10.0  # for connecting, and for the next bytes
_CHUNK_BYTES = 1 << 20


class DownloadError(OSError):
    """No address delivered the file; the message says what was wrong with each."""


def download(
    addresses: Sequence[str],
    path: Path,
    num_bytes: int,
    sha256: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Fetch a file from the first address that delivers it.

    A transfer that breaks off is gone on from what came, in this call or a later one. Of several processes that want
    the same file, one fetches it and the others wait.

    Args:
        addresses: http, https or file URLs of equal content, tried in this order.
        path: The file's name; its folder is created.
        num_bytes: Its size.
        sha256: Its hash; a file with another one is deleted.
        progress: Called with the bytes that are there and `num_bytes`.

    Raises:
        DownloadError: No address delivers it.
        OSError: The folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with _locked(part):
        try:
            if not path.exists():  # else another process was faster
                _fetch_from_any(addresses, part, num_bytes, sha256, progress)
                os.replace(part, path)
        finally:
            if part.exists() and _size(part) == 0:
                part.unlink()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch_from_any(
    addresses: Sequence[str], part: Path, num_bytes: int, sha256: str, progress: Callable[[int, int], None]
) -> None:
    problems = []
    for address in addresses:
        try:
            _fetch(address, part, num_bytes, progress)
            found = file_sha256(part)
            if found == sha256:
                return
            part.unlink()
            problems.append(f"{address}: its content has sha256 {found}, not {sha256}")
        except (OSError, http.client.HTTPException) as error:
            reason = str(error.reason) if type(error) is urllib.error.URLError else str(error)
            problems.append(f"{address}: {reason or type(error).__name__}")
    raise DownloadError("; ".join(problems))


def _fetch(address: str, part: Path, num_bytes: int, progress: Callable[[int, int], None]) -> None:
    """Complete the partial file; raises when a connection brings nothing new."""
    while (size := _size(part)) != num_bytes:
        try:
            _transfer(address, part, size if size < num_bytes else 0, num_bytes, progress)
        except (OSError, http.client.HTTPException):
            if _size(part) <= size:
                raise


def _transfer(address: str, part: Path, start: int, num_bytes: int, progress: Callable[[int, int], None]) -> None:
    """Append one connection's bytes to the partial file, from byte `start` of the whole on."""
    request = urllib.request.Request(address, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SEC) as response:
        if start and getattr(response, "status", None) != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0  # this server sends whole files only
        announced = response.headers.get("Content-Length")
        if announced is not None and start + int(announced) != num_bytes:
            raise OSError(f"the file there has {start + int(announced):,} bytes, not {num_bytes:,}")
        with open(part, "ab") as file:
            file.truncate(start)
            progress(start, num_bytes)
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                progress(file.tell(), num_bytes)
    if _size(part) != num_bytes:
        raise OSError(f"the connection ended after {_size(part):,} of {num_bytes:,} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[None]:
    """Keep other processes from the partial file, after waiting for one that has it; Windows knows no such locks."""
    if sys.platform == "win32":
        yield
        return
    while True:
        with open(part, "ab") as file:
            with contextlib.suppress(OSError):  # some network file systems cannot lock
                fcntl.flock(file, fcntl.LOCK_EX)
            if part.exists() and os.path.samestat(os.fstat(file.fileno()), part.stat()):
                yield
                return
        # The process that had it finished the file or removed it: lock the one that has the name now.
