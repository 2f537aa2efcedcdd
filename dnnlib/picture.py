"""Pictures: from the bytes of any common format to pixels as a data set wants them, and to PNG."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageOps

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")

_CHANNELS_OF_MODE = {"1": 1, "L": 1, "P": 3, "RGB": 3, "CMYK": 3, "YCbCr": 3}
_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_CHANNELS_OF_PNG = {b"\x08\x00": 1, b"\x08\x02": 3}  # bit depth and colour type of 8-bit grey and RGB
_LOW_COMPRESSION = 1  # far faster than the default and hardly larger


@dataclass(frozen=True)
class Layout:
    """Size and kind of a picture as it is seen, that is after its EXIF rotation."""

    width: int
    height: int
    channels: int  # 1 = grey, 3 = colour

    def __str__(self) -> str:
        return f"{self.width}x{self.height} {'grey' if self.channels == 1 else 'RGB'}"


def read_layout(file: IO[bytes]) -> Layout:
    """Return the layout that a picture file declares; its pixels are not read.

    Raises:
        ValueError: Not a picture, or of a kind that a data set cannot hold (transparency, more than 8 bits).
    """
    start = file.read(26)
    if start.startswith(_PNG_START) and start[24:26] in _CHANNELS_OF_PNG:  # what dataset_tool.py writes
        width, height = int.from_bytes(start[16:20]), int.from_bytes(start[20:24])
        return Layout(width, height, _CHANNELS_OF_PNG[start[24:26]])
    file.seek(0)
    with _open(file) as image:
        width, height = image.size
        if _declared_orientation(image) >= 5:  # the four that lie on their side
            width, height = height, width
        return Layout(width, height, _channels(image))


def common_layout(origins: Iterable[str], layouts: Iterable[Layout]) -> Layout:
    """Return the layout for all pictures: the size they share; grey if all are grey, else RGB.

    Raises:
        ValueError: Pictures of two sizes; names both by their `origins`.
    """
    pairs = zip(origins, layouts, strict=True)
    first_origin, first = next(pairs)
    channels = first.channels
    for origin, layout in pairs:
        if (layout.width, layout.height) != (first.width, first.height):
            raise ValueError(
                f"pictures must be of one size, but {first_origin} is {first.width}x{first.height} and {origin} is "
                f"{layout.width}x{layout.height}; resize or crop them first"
            )
        channels = max(channels, layout.channels)
    return Layout(first.width, first.height, channels)


def decode(data: bytes, channels: int | None = None) -> np.ndarray:
    """Return the pixels of a picture file, upright, uint8 [height, width, channels].

    Args:
        data: Content of the file.
        channels: 1 or 3; None = as many as the file has. Grey becomes RGB where 3 are asked for.

    Raises:
        ValueError: Damaged, of an unsupported kind, or colour where 1 channel is asked for.
    """
    with _open(io.BytesIO(data)) as image:
        own_channels = _channels(image)
        if channels == 1 and own_channels == 3:
            raise ValueError("is in colour, among grey pictures")
        try:
            upright = ImageOps.exif_transpose(image).convert("L" if (channels or own_channels) == 1 else "RGB")
        except Exception as error:  # decoders raise nearly anything on damaged data
            raise ValueError(f"is damaged ({error})") from error
    pixels = np.asarray(upright)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def encode_png(pixels: np.ndarray) -> bytes:
    """Return a PNG file of uint8 [height, width, channels]; 1 channel is stored as grey, 3 as RGB."""
    output = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(
        output, format="png", compress_level=_LOW_COMPRESSION
    )
    return output.getvalue()


def _open(file: IO[bytes]) -> Image.Image:
    try:
        return Image.open(file)
    except Exception as error:  # readers of headers, too
        raise ValueError("is not a picture, or damaged") from error


def _channels(image: Image.Image) -> int:
    if "A" in image.getbands() or (image.mode == "P" and "transparency" in image.info):
        raise ValueError(
            "has transparency (an alpha channel), which a data set cannot hold; put it on a plain background first, "
            "for example with ImageMagick: mogrify -background white -alpha remove -alpha off FILES"
        )
    if image.mode not in _CHANNELS_OF_MODE:
        raise ValueError(f"has pixels of kind {image.mode!r}; convert it to 8 bits a channel, grey or RGB, first")
    return _CHANNELS_OF_MODE[image.mode]


def _declared_orientation(image: Image.Image) -> int:
    # Only of formats that keep EXIF in the header: for PNG Pillow would read all the pixels to find it. Of a TIFF it
    # gives the upright size by itself.
    return image.getexif().get(ExifTags.Base.Orientation, 1) if image.format in ("JPEG", "MPO", "WEBP") else 1
