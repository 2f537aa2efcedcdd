"""A file of decoded pictures, to be mapped into memory: pixels, which pictures are there, shape and checksum."""

import math
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dnnlib.files import atomic_write

_MAGIC = b"SFPIX\0\0\1"  # the last byte is the version
_FOOTER = struct.Struct("<8s4QI")  # magic, shape, CRC-32 of all that comes before the footer
_CHECKED_BYTES = 1 << 24  # at once


def file_bytes(shape: tuple[int, ...]) -> int:
    """Return the size of a file of pictures of this shape, [files, channels, height, width]."""
    return math.prod(shape) + shape[0] + _FOOTER.size


def write_pictures(path: Path, shape: tuple[int, ...], parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
    """Write pictures that come in parts, in order; the file takes its name when it is whole.

    Args:
        path: Of the file; its folder must exist.
        shape: Of all pictures, [files, channels, height, width].
        parts: Pictures, uint8 [some, channels, height, width], and which of them are there, bool [some].
    """
    with atomic_write(path) as file:
        crc, masks = 0, []
        for pixels, is_there in parts:
            data = np.ascontiguousarray(pixels).data
            crc = zlib.crc32(data, crc)
            file.write(data)
            masks.append(is_there)
        mask = np.concatenate(masks).tobytes()
        file.write(mask)
        file.write(_FOOTER.pack(_MAGIC, *shape, zlib.crc32(mask, crc)))


def map_pictures(path: Path, shape: tuple[int, ...], verify: bool = True) -> tuple[np.ndarray, np.ndarray] | None:
    """Return what `write_pictures` wrote, the pixels mapped into memory; None if there is no such file, or it is damaged.

    Processes that map it share the memory. What one of them writes there stays its own.
    """
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size != file_bytes(shape):
                return None
            content = np.memmap(file, np.uint8, mode="c")
    except (OSError, ValueError):
        return None
    body, footer = content[: -_FOOTER.size], content[-_FOOTER.size :]
    magic, *stored_shape, crc = _FOOTER.unpack(footer.tobytes())
    if magic != _MAGIC or tuple(stored_shape) != tuple(shape) or (verify and _crc(body) != crc):
        return None
    num_pixels = math.prod(shape)
    return np.asarray(body[:num_pixels]).reshape(shape), body[num_pixels:].astype(bool)


def _crc(data: np.ndarray) -> int:
    crc = 0
    for start in range(0, len(data), _CHECKED_BYTES):
        crc = zlib.crc32(data[start : start + _CHECKED_BYTES].data, crc)
    return crc
