"""Images with 16 bits per channel, of which Pillow keeps only the upper byte."""

import io
import sys
from typing import Any

import numpy as np
from PIL import Image

_GREY = ("I;16", "I;16B", "I;16L", "I;16N")
_COLOUR = ("RGB", "RGBX", "RGBA", "CMYK")  # with ;16B, ;16L and ;16N for big, little and the machine's byte order
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_BITS_TAG, _PHOTOMETRIC_TAG, _PLANAR_TAG = 258, 262, 284  # of TIFF


def mode_16_bits(image: Image.Image) -> str | None:
    """Return the mode that `reduced_to_8_bits` will give an opened, not yet loaded file; None without 16 bits.

    Raises ValueError: more than 8 bits, but in a way that `reduced_to_8_bits` cannot read.
    """
    raw_mode = _raw_mode(image)
    kind, _, order = raw_mode.partition(";16")
    known = raw_mode in (*_GREY, "LA;16B") or (kind in _COLOUR and order in _OTHER_ORDER)
    is_deep_tiff = image.format == "TIFF" and max(_tag(image, _BITS_TAG, (1,))) > 8
    if is_deep_tiff and (not known or _tag(image, _PLANAR_TAG) == 2):
        raise ValueError("has more than 8 bits per channel in an unusual way; convert it to 8 bits per channel first")
    if image.mode.startswith("I"):
        return "L" if known or image.format == "PPM" else None  # whose values Pillow stretches to 0..65535
    if not known:
        return None
    return "LA" if raw_mode == "LA;16B" else image.mode


def reduced_to_8_bits(data: bytes) -> Image.Image:
    """Return such an image with 8 bits per channel, each value v being v / 257 rounded to the nearest.

    257 takes 65535 to 255, so that white stays white; the upper byte alone would be up to 1 too small.
    """
    image = Image.open(io.BytesIO(data))
    mode = mode_16_bits(image) or image.mode
    values = _values(image, data)
    if image.format == "TIFF" and mode == "L" and _tag(image, _PHOTOMETRIC_TAG) == 0:  # white is zero
        values = 65535 - values
    reduced = (values.astype(np.uint32) + 128) // 257
    result = Image.frombytes(mode, image.size, reduced.astype(np.uint8).tobytes())
    result.info, result.format = image.info, image.format  # both tell which side is up
    return result


def _values(image: Image.Image, data: bytes) -> np.ndarray:
    """Load an opened file and return its values, uint16 [height, width(, channels)]."""
    raw_mode = _raw_mode(image)
    if image.mode.startswith("I"):
        image.load()
        return np.asarray(image).astype(np.uint16)
    if raw_mode == "LA;16B":  # four bytes, read as if they were the channels of RGBA
        parts = np.asarray(_reinterpreted(image, "RGBA")).astype(np.uint16)
        return parts[:, :, 0::2] * 256 + parts[:, :, 1::2]
    swapped = _reinterpreted(Image.open(io.BytesIO(data)), raw_mode[:-1] + _OTHER_ORDER[raw_mode[-1]])
    image.load()
    lower = np.asarray(swapped)  # read in the other byte order, the upper byte is the lower one
    return np.asarray(image).astype(np.uint16) * 256 + lower


def _reinterpreted(image: Image.Image, raw_mode: str) -> Image.Image:
    """Load an opened file as if its bytes were pixels of another kind."""
    image.tile = [_retyped(tile, raw_mode) for tile in image.tile]  # type: ignore[attr-defined]  # of ImageFile
    image.load()  # here, because numpy would hide an error
    return image


def _retyped(tile: Any, raw_mode: str) -> Any:
    arguments = raw_mode if isinstance(tile[3], str) else (raw_mode, *tile[3][1:])
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)  # before Pillow 11


def _raw_mode(image: Image.Image) -> str:
    """Return Pillow's name of the layout of the stored pixels; "" if there is none."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _tag(image: Image.Image, number: int, default: object = None) -> Any:
    return image.tag_v2.get(number, default)  # type: ignore[attr-defined]  # declared by TiffImageFile
