"""A zip file: its members by name, and a check in every process that it is still the file that was opened first."""

import hashlib
import os
import re
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

from dnnlib.names import both_shown, normal_name, printable
from dnnlib.text import format_bytes

READ_ERRORS = (
    OSError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, struct.error, OverflowError,
)  # fmt: skip
MAX_FILE_BYTES = 2**30  # more in one file is a mistake or an attack

_ENCRYPTED_FLAG, _UTF8_FLAG = 0x1, 0x800
_UNICODE_PATH = 0x7075  # extra field: version 1, CRC-32 of the other name, name in UTF-8
_UNICODE_PATH_START = struct.pack("<H", _UNICODE_PATH)

Stamp = tuple[int, int, int]  # inode, bytes, time of the last change


class ChangedError(ValueError):
    """The opened file or folder is gone, or another one is at its path."""


class ZipReader:
    """The members of a zip file; may be used after a fork: each process opens the file for itself, once.

    Args:
        digest: Of its table, if another process has opened it before; "" = any file will do.
    """

    def __init__(self, path: Path, digest: str = "") -> None:
        self._path, self._digest = path, digest
        self._archive: zipfile.ZipFile | None = None
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._stamp: Stamp | None = None
        self._pid = 0

    @property
    def digest(self) -> str:
        if not self._digest:
            self._open()
        return self._digest

    def members(self) -> dict[str, zipfile.ZipInfo]:
        """Return the files by their normal names.

        Raises:
            ValueError: Not a zip, damaged, two members of one name, or one with an absolute path or "..".
            ChangedError: Not the file that was opened first.
        """
        self._current()
        return self._members

    def folders(self) -> list[str]:
        """Return the folders that are members of their own, by their normal names."""
        names = map(_decoded_name, self._current().filelist)
        return [normal_name(name) for name in names if name.endswith(("/", "\\"))]

    def has_guessed_names(self) -> bool:
        """Return whether a name is neither ASCII nor UTF-8, and was read as code page 437, which may be wrong."""
        return any(_known_name(member) is None for member in self.members().values())

    def read(self, name: str, max_bytes: int = MAX_FILE_BYTES) -> bytes:
        """Return the content of a member; ValueError if it declares more bytes."""
        with self.open(name, max_bytes) as file:
            return file.read(self._members[name].file_size)  # without a number, a bomb would be inflated as a whole

    def open(self, name: str, max_bytes: int = MAX_FILE_BYTES) -> IO[bytes]:
        """Open a member; ValueError if it is encrypted, a link or declares more bytes."""
        archive, member = self._current(), self._members[name]
        if member.flag_bits & _ENCRYPTED_FLAG:
            raise ValueError("is encrypted; unpack the zip with its password and pack it again without one")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ValueError(
                "is a link, whose target a zip does not hold; pack the zip again with the files themselves"
            )
        check_size(member.file_size, max_bytes)
        return archive.open(member)

    def check(self) -> None:
        """Raise ChangedError if the opened file is no longer at its path; a copy of it may be."""
        try:
            if _stamp(os.stat(self._path)) != self._stamp:
                self._open()
        except OSError as error:
            raise ChangedError(f"{self._path} is gone ({error.strerror}); put it back") from error

    def _current(self) -> zipfile.ZipFile:
        # A handle from before a fork shares its file position.
        if self._archive is None or self._pid != os.getpid() or _stamp_of(self._archive) != self._stamp:
            return self._open()
        return self._archive

    def _open(self) -> zipfile.ZipFile:
        try:
            archive = zipfile.ZipFile(self._path)
            digest = _table_digest(archive)
        except (ValueError, *READ_ERRORS) as error:
            message = _explain(self._path, error)
            if self._digest:
                raise ChangedError(f"{message}. It could be read before: put the original back") from error
            raise ValueError(message) from error
        if self._digest not in ("", digest):
            raise ChangedError(f"{self._path} has been replaced since it was opened; put the original back")
        self._archive, self._members, self._digest = archive, _members_by_name(self._path, archive), digest
        self._pid, self._stamp = os.getpid(), _stamp_of(archive)
        return archive


def check_size(num_bytes: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        raise ValueError(f"has {format_bytes(num_bytes)}, more than the limit of {format_bytes(max_bytes)}")


def describe_error(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _explain(path: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{path} cannot be read: {describe_error(error)}"
    if isinstance(error, UnicodeDecodeError):
        return f"{path} has a name that is not UTF-8, though it is marked as such; pack the zip again"
    return f"{path} is a damaged zip file ({describe_error(error)}); copy or download it again"


def _members_by_name(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.filelist:
        spelled = _decoded_name(member)
        if spelled.endswith(("/", "\\")):  # a folder
            continue
        name = normal_name(spelled)
        if spelled[:1] in ("/", "\\") or re.match("[A-Za-z]:", spelled) or ".." in name.split("/"):
            raise ValueError(
                f'{path} has a member named "{printable(spelled)}": absolute paths and .. are refused; pack the zip again '
                f"with paths relative to one folder"
            )
        if name in members:
            both = both_shown(_decoded_name(members[name]), spelled)
            raise ValueError(f"{path} has two members of one name: {both}; rename or remove one of them")
        members[name] = member
    return members


def _decoded_name(member: zipfile.ZipInfo) -> str:
    """Return the name of a member: from its Unicode-path field, else UTF-8 with or without its flag, else cp437."""
    if (known := _known_name(member)) is not None:
        return known
    name = member.orig_filename
    # Between slashes, a backslash is the second byte of a character in Shift-JIS or the like.
    return name.replace("\\", "%5C") if "/" in name else name


def _known_name(member: zipfile.ZipInfo) -> str | None:
    """Return the name of a member if its encoding is known."""
    name = member.orig_filename  # zipfile cuts the other one at a zero byte
    if member.flag_bits & _UTF8_FLAG or (name.isascii() and _UNICODE_PATH_START not in member.extra):
        return name
    raw = name.encode("cp437")
    try:
        return (_unicode_path(member.extra, zlib.crc32(raw)) or raw).decode()
    except UnicodeDecodeError:
        return None


def _unicode_path(extra: bytes, name_crc: int) -> bytes | None:
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        if kind == _UNICODE_PATH and size > 5 and extra[4:9] == struct.pack("<BI", 1, name_crc):
            return extra[9 : 4 + size]
        extra = extra[4 + size :]
    return None


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _stamp_of(archive: zipfile.ZipFile) -> Stamp:
    assert archive.fp is not None  # it is never closed while it is in use
    return _stamp(os.fstat(archive.fp.fileno()))


def _table_digest(archive: zipfile.ZipFile) -> str:
    """Return a SHA-256 of the table, which has the names and checksums of all contents."""
    assert archive.fp is not None
    archive.fp.seek(archive.start_dir)
    return hashlib.sha256(archive.fp.read()).hexdigest()
