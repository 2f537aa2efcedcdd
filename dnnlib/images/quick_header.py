"""Size and channels of plain PNG and JPEG files from their first bytes, many times faster than Pillow finds them."""

_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_CHANNELS_OF_PNG = {b"\x08\x00": 1, b"\x08\x02": 3}  # bit depth and colour type of 8-bit grey and RGB
_JPEG_START = b"\xff\xd8"
_SIZE_MARKERS = (0xC0, 0xC1, 0xC2)  # of baseline, extended and progressive JPEG
_PIXELS_MARKER = 0xDA
_SKIPPED_MARKERS = (0xC4, 0xDB, 0xDD, 0xE0, 0xEE, 0xFE)  # tables, JFIF, Adobe, comment: nothing that turns the image


def quick_header(start: bytes) -> tuple[int, int, int] | None:
    """Return width, height and channels of a file by its first bytes; None = Pillow has to look at it.

    A PNG is plain if its pixels follow the size at once, a JPEG if nothing before its pixels may say that it is rotated,
    transparent or one of several.
    """
    if start.startswith(_PNG_START):
        channels = _CHANNELS_OF_PNG.get(start[24:26])
        if channels is None or start[37:41] != b"IDAT":
            return None
        return int.from_bytes(start[16:20]), int.from_bytes(start[20:24]), channels
    return _jpeg_header(start) if start.startswith(_JPEG_START) else None


def _jpeg_header(start: bytes) -> tuple[int, int, int] | None:
    found, position = None, 2
    while position + 4 <= len(start) and start[position] == 0xFF:
        marker = start[position + 1]
        if marker == _PIXELS_MARKER:
            return found
        content, position = position + 4, position + 2 + int.from_bytes(start[position + 2 : position + 4])
        if marker in _SIZE_MARKERS:
            bits, height, width, channels = _size_segment(start[content : content + 6])
            if found or bits != 8 or height == 0 or width == 0 or channels not in (1, 3):
                return None
            found = width, height, channels
        elif marker not in _SKIPPED_MARKERS:
            return None
    return None


def _size_segment(content: bytes) -> tuple[int, int, int, int]:
    """Return bits per channel, height, width and channels."""
    padded = content.ljust(6, b"\0")
    return padded[0], int.from_bytes(padded[1:3]), int.from_bytes(padded[3:5]), padded[5]
