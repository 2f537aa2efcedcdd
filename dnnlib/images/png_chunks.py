"""PNG files as chunks: without what does not matter for pixels, or with the metadata alone."""

import os
import zipfile
import zlib
from typing import IO

_START = b"\x89PNG\r\n\x1a\n"
_LOOKS = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND")  # chunks that decide how an image looks
_METADATA = (b"eXIf", b"iTXt", b"zTXt", b"tEXt")  # chunks that may hold an orientation
_TAIL_BYTES = 2**16  # where metadata behind the pixels is looked for


def without_metadata(data: bytes) -> bytes | None:
    """Return a PNG file without text, profiles and other chunks that do not matter for pixels; None if there are none."""
    if not data.startswith(_START):
        return None
    parts, position = [_START], len(_START)
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4])
        if data[position + 4 : position + 8] in _LOOKS:
            parts.append(data[position:end])
        position = end
    plain = b"".join(parts)
    return plain if len(plain) < len(data) else None


def late_metadata(file: IO[bytes]) -> bytes | None:
    """Return a PNG file with no more than the metadata of another; None if none of that stands behind the pixels.

    Files in a zip are not searched, and others only if their last 64 KiB hold such a chunk.
    """
    if isinstance(file, zipfile.ZipExtFile):  # which reads all that it skips
        return None
    file.seek(-min(_TAIL_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
    tail = file.read()
    if not any(kind in tail for kind in _METADATA):
        return None
    parts, behind_pixels, is_late = [_START], False, False
    file.seek(len(_START))
    while len(start := file.read(8)) == 8:
        length, kind = int.from_bytes(start[:4]), start[4:]
        if kind == b"IEND" or (kind == b"fcTL" and behind_pixels):  # the next frame, which is not read
            break
        if kind == b"IHDR" or kind in _METADATA:
            parts.append(_chunk(kind, file.read(length)))
            file.seek(4, os.SEEK_CUR)
            is_late = is_late or behind_pixels
        else:
            behind_pixels = behind_pixels or kind == b"IDAT"
            file.seek(length + 4, os.SEEK_CUR)
    return b"".join([*parts, _chunk(b"IDAT", b"")]) if is_late else None


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)
