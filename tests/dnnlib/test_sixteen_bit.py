import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from dnnlib.images.codec import Layout, decode, read_layout

RNG = np.random.default_rng(0)
EVERY_VALUE = np.arange(65536, dtype=np.uint16)
COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # of PNG, by channels


def _reduced(values: np.ndarray) -> np.ndarray:
    return np.round(values / 257).astype(np.uint8)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(values: np.ndarray, extra: bytes = b"") -> bytes:
    """Return a 16-bit PNG file of uint16 [height, width, channels]; its lines use the filters none and sub in turn."""
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, COLOR_TYPES[channels], 0, 0, 0)
    lines = values.astype(">u2").reshape(height, -1).view(np.uint8)
    differences = lines.copy()
    differences[:, 2 * channels :] -= lines[:, : -2 * channels]
    rows = (bytes([y % 2]) + (differences if y % 2 else lines)[y].tobytes() for y in range(height))
    body = _chunk(b"IHDR", header) + extra + _chunk(b"IDAT", zlib.compress(b"".join(rows))) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _tiff(values: np.ndarray, order: str = "<", photometric: int = 2, deflate: bool = False, **tags: int) -> bytes:
    """Return a TIFF file of uint16 [height, width, channels] with one strip; order is < (little) or > (big endian)."""
    height, width, channels = values.shape
    pixels = values.astype(f"{order}u2").tobytes()
    pixels = zlib.compress(pixels) if deflate else pixels
    is_little = order == "<"
    directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II" if is_little else b"MM")
    directory.update({
        256: width, 257: height, 258: (tags.get("bits", 16),) * channels, 259: 8 if deflate else 1, 262: photometric,
        273: 0, 277: channels, 278: height, 279: len(pixels), 284: tags.get("planar", 1),
    })  # fmt: skip
    if "extra" in tags:
        directory[338] = tags["extra"]
    start = (b"II*\0" if is_little else b"MM\0*") + struct.pack(f"{order}I", 8)
    return start + directory.tobytes(8) + pixels  # offset 0 of the strip, 273: behind the directory


def _saved(values: np.ndarray) -> bytes:
    output = io.BytesIO()
    Image.fromarray(values).save(output, format="TIFF")
    return output.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_every_value_is_divided_by_257_and_rounded(channels: int) -> None:
    values = np.stack([np.roll(EVERY_VALUE, shift) for shift in range(0, 300 * channels, 300)], axis=-1)
    values = values.reshape(256, 256, channels)
    data = _png(values)
    assert read_layout(io.BytesIO(data)) == Layout(256, 256, channels)
    assert np.array_equal(decode(data), _reduced(values))


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiff(order: str, channels: int, deflate: bool) -> None:
    values = RNG.integers(0, 65536, (5, 7, channels), dtype=np.uint16)
    data = _tiff(values, order, photometric=1 if channels == 1 else 2, deflate=deflate)
    assert read_layout(io.BytesIO(data)) == Layout(7, 5, channels)
    assert np.array_equal(decode(data), _reduced(values))


def test_tiff_whose_white_is_zero() -> None:
    values = RNG.integers(0, 65536, (5, 7, 1), dtype=np.uint16)
    assert np.array_equal(decode(_tiff(values, photometric=0)), _reduced(65535 - values))


def test_cmyk_tiff() -> None:
    values = RNG.integers(0, 65536, (5, 7, 4), dtype=np.uint16)
    expected = Image.frombytes("CMYK", (7, 5), _reduced(values).tobytes()).convert("RGB")
    assert np.array_equal(decode(_tiff(values, photometric=5)), np.asarray(expected))


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha(channels: int) -> None:
    values = RNG.integers(0, 65536, (5, 7, channels), dtype=np.uint16)
    values[:3, :, -1] = 65535
    values[3:, :, -1] = 0
    data = _png(values)
    with pytest.raises(ValueError, match="transparency"):
        decode(data)
    decoded = decode(data, background=(9, 9, 9))
    assert decoded.shape == (5, 7, channels - 1)
    assert np.array_equal(decoded[:3], _reduced(values[:3, :, :-1]))
    assert (decoded[3:] == 9).all()


def test_grey_of_ppm() -> None:
    values = RNG.integers(0, 65536, (5, 7, 1), dtype=np.uint16)
    data = b"P5 7 5 65535\n" + values.astype(">u2").tobytes()
    assert np.array_equal(decode(data), _reduced(values))
    ten_bits = b"P5 3 1 1023\n" + np.array([0, 512, 1023], ">u2").tobytes()
    assert decode(ten_bits).ravel().tolist() == [0, 128, 255]


def test_exif_rotation() -> None:
    values = RNG.integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 8
    data = _png(values, extra=_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    assert read_layout(io.BytesIO(data)) == Layout(5, 7, 3)
    assert np.array_equal(decode(data), np.rot90(_reduced(values)))


@pytest.mark.parametrize(
    "data",
    [
        _tiff(np.zeros((5, 7, 4), np.uint16), extra=1),  # colours multiplied by alpha
        _tiff(np.zeros((5, 7, 3), np.uint16), planar=2),
        _tiff(np.zeros((5, 7, 1), np.uint16), photometric=1, bits=12),
        _png(np.zeros((5, 7, 3), np.uint16), extra=_chunk(b"tRNS", bytes(6))),
        _saved(np.zeros((5, 7), np.int32)),
        _saved(np.zeros((5, 7), np.float32)),
    ],
)
def test_unusual_kinds_and_32_bits_are_refused(data: bytes) -> None:
    for read in (decode, lambda content: read_layout(io.BytesIO(content))):
        with pytest.raises(ValueError, match="convert it to 8 bits"):
            read(data)
