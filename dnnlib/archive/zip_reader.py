"""A zip file, read without trusting it: its names, kinds and sizes are checked, and that it stays the file it was."""

import hashlib
import io
import os
import re
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

from dnnlib.text import format_bytes

READ_ERRORS = (
    OSError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, struct.error, OverflowError,
)  # fmt: skip
MAX_FILE_BYTES = 2**30  # more in one file is a mistake or an attack

_SMALL_BYTES = 2**24  # does no harm, however few bytes it is unpacked from
_MAX_RATIO = 200  # of larger members: unpacked bytes a stored one; deflate reaches 1,032
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others zipfile unpacks without any bound
_PLAIN_KINDS = (0, stat.S_IFREG)  # 0: packed where files have no Unix mode
_HARMLESS = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*")  # a name that needs no closer look
_CONTROL = re.compile(r"[\0-\x1f\x7f]")  # in a name: it would spoil messages, if not worse
_SHOWN = 80  # characters of a name in a message
_ENCRYPTED = 0x41  # flag bits: by a password, strongly
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # before a member: its mark, the length of its name and of what else is there
_NAME_BYTES = 256  # more than both have as a rule
_SHORT_BYTES = 4096

Stamp = tuple[int, int, int]  # inode, bytes, time of the last change
Identity = tuple[Stamp | None, str]  # the stamp and the digest of the table; (None, "") = any file will do


class ChangedError(ValueError):
    """What was opened is gone, or something else is in its place."""


class ZipReader:
    """The members of a zip file; may be used after a fork: each process opens the file for itself, once."""

    def __init__(self, path: Path, identity: Identity = (None, "")) -> None:
        self._path = path
        self._archive: zipfile.ZipFile | None = None
        self._pid = 0
        self._stamp, self._digest = identity

    def identity(self) -> Identity:
        """Return what a reader in another process must find."""
        if not self._digest:
            self._digest = _digest(self._current())
        return self._stamp, self._digest

    def members(self) -> dict[str, zipfile.ZipInfo]:
        """Return the table.

        Raises:
            ValueError: Not a zip, damaged, or with members of one name or of a name that leads outside.
            ChangedError: It is not the file that was opened at first.
        """
        return self._current().NameToInfo

    def open(self, name: str) -> IO[bytes]:
        """Open a member, of which no more than it declares will be read; ValueError if that is too much."""
        archive = self._current()
        return _opened(archive, archive.NameToInfo[name])

    def start(self, name: str, num_bytes: int) -> bytes:
        """Return the first bytes of a member, fewer of a shorter one: for a look at many, quicker than `open`."""
        archive = self._current()
        member = archive.NameToInfo[name]
        stored = _stored_start(archive, member, num_bytes)
        if stored is not None:
            return stored
        with _opened(archive, member) as file:
            return file.read(num_bytes)

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return the content of a member; ValueError if it is larger than so many bytes, or more than a member may be."""
        archive = self._current()
        member = archive.NameToInfo[name]
        with _opened(archive, member) as file:
            check_size(member.file_size, max_bytes)
            return file.read(member.file_size)

    def check(self) -> None:
        """Raise ChangedError if the file that was opened is no longer at its path; a copy of it may be there."""
        try:
            is_same = _stamp(os.stat(self._path)) == self._stamp
        except OSError as error:
            raise ChangedError(f"{self._path} is gone ({error.strerror}); put it back") from error
        if not is_same:
            self._open()

    def _current(self) -> zipfile.ZipFile:
        # A handle from before a fork shares its file position. Looking at the stamp costs next to nothing.
        if self._archive is None or self._pid != os.getpid() or _stamp_of(self._archive) != self._stamp:
            return self._open()
        return self._archive

    def _open(self) -> zipfile.ZipFile:
        """Open the file at the path, which must be what was opened at first."""
        try:
            archive = _read_table(self._path)
        except ValueError as error:
            if self._stamp is None:
                raise
            raise ChangedError(f"{error}. It could be read before: put the original back") from error
        stamp = _stamp_of(archive)
        if self._stamp not in (None, stamp):  # perhaps just touched, or copied
            self._digest = self._digest or _digest(self._archive)
            if _digest(archive) != self._digest:
                raise ChangedError(f"{self._path} has been replaced since it was opened; put the original back")
        self._archive, self._pid, self._stamp = archive, os.getpid(), stamp
        return archive


class _InParts(io.RawIOBase):
    """A compressed member; asked for all of it, zipfile would unpack up to 1 GiB whatever the member declares."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def check_size(num_bytes: int, max_bytes: int) -> None:
    """Raise ValueError if a file is too large."""
    if num_bytes > max_bytes:
        raise ValueError(f"has {format_bytes(num_bytes)}, more than the {format_bytes(max_bytes)} that it may have")


def describe_error(error: BaseException) -> str:
    """Return what an error of reading says, in a few words."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _read_table(path: Path) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {describe_error(error)}") from error
    except (ValueError, *READ_ERRORS) as error:
        raise ValueError(
            f"{path} is a damaged zip file ({describe_error(error)}); copy or download it again"
        ) from error
    _check_names(path, archive.filelist)
    if sum(member.compress_size for member in archive.filelist) > _stamp_of(archive)[1]:
        raise ValueError(f"{path} has members that overlap, as in a decompression bomb; pack the zip again")
    return archive


def _check_names(path: Path, members: list[zipfile.ZipInfo]) -> None:
    seen = set()
    for member in members:
        name = member.orig_filename  # zipfile cuts the other one at a zero byte
        if not _HARMLESS.fullmatch(name):
            _refuse_bad_name(path, name)
            name = _without_detours(name)
        if member.is_dir():
            continue
        if name in seen:
            raise ValueError(f"{path} has two members named {name[:_SHOWN]!r}; pack the zip again, each file once")
        seen.add(name)


def _refuse_bad_name(path: Path, name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or re.match("[A-Za-z]:", name) or ".." in parts:
        raise ValueError(
            f"{path} has a member named {name[:_SHOWN]!r}: absolute paths and .. are refused; pack the zip again "
            f"with paths relative to one folder"
        )
    if _CONTROL.search(name):
        raise ValueError(
            f"{path} has a member named {name[:_SHOWN]!r}: control characters are refused; copy or download the zip "
            f"again, or pack it with ordinary names"
        )


def _without_detours(name: str) -> str:
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def _opened(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    refusal = _refusal(member)
    if refusal:
        raise ValueError(refusal)
    file = archive.open(member)
    return file if member.compress_type == zipfile.ZIP_STORED else io.BufferedReader(_InParts(file))


def _stored_start(archive: zipfile.ZipFile, member: zipfile.ZipInfo, num_bytes: int) -> bytes | None:
    """Return the first bytes of a member that is stored as it is, by one read; None where `open` has to look at it.

    Of a short member the checksum is checked.
    """
    if member.compress_type != zipfile.ZIP_STORED or _refusal(member) or archive.fp is None or not hasattr(os, "pread"):
        return None
    size = _LOCAL_HEADER.size
    wanted = member.file_size if member.file_size <= _SHORT_BYTES else num_bytes
    data = os.pread(archive.fp.fileno(), size + _NAME_BYTES + wanted, member.header_offset)
    if len(data) < size:
        return None
    mark, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(data[:size])
    if mark != b"PK\3\4" or data[size : size + name_bytes].decode("latin1") != member.orig_filename:
        return None
    content = data[size + name_bytes + extra_bytes :][:wanted]
    is_whole = len(content) == wanted and (wanted < member.file_size or zlib.crc32(content) == member.CRC)
    return content[:num_bytes] if is_whole else None


def _refusal(member: zipfile.ZipInfo) -> str | None:
    """Return why a member must not be read; None if it may be."""
    packed, unpacked = member.compress_size, member.file_size
    if stat.S_IFMT(member.external_attr >> 16) not in _PLAIN_KINDS:
        return "is a link or another special file; pack the zip again with the file itself"
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted; unpack the zip with its password and pack it again without one"
    if member.compress_type not in _METHODS:
        return f"is compressed by a rare method (number {member.compress_type}); pack the zip again with the usual one"
    if unpacked > MAX_FILE_BYTES:
        limit = format_bytes(MAX_FILE_BYTES)
        return f"would unpack to {format_bytes(unpacked)}, more than the {limit} that one file in a zip may have"
    if unpacked > _SMALL_BYTES and unpacked > packed * _MAX_RATIO:
        return (
            f"would unpack from {format_bytes(packed)} to {format_bytes(unpacked)}, as a decompression bomb does; if it "
            f"is none, unpack the zip and give the folder"
        )
    return None


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _stamp_of(archive: zipfile.ZipFile) -> Stamp:
    assert archive.fp is not None  # it is never closed while it is in use
    return _stamp(os.fstat(archive.fp.fileno()))


def _digest(archive: zipfile.ZipFile | None) -> str:
    """Return a SHA-256 of the table, which has the checksums of all contents."""
    digest = hashlib.sha256()
    for member in archive.filelist if archive else ():
        facts = (member.orig_filename, member.CRC, member.file_size, member.compress_size, member.header_offset)
        digest.update(repr(facts).encode())
    return digest.hexdigest()
