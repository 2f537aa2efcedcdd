"""Decodes image files of any common format to 8-bit grey or RGB, and encodes PNG."""

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageColor, features

from dnnlib.images.png_chunks import late_metadata, without_metadata
from dnnlib.images.sixteen_bit import mode_16_bits, reduced_to_8_bits

FORMATS = {  # that Pillow may open, none of which runs another program as PostScript would; their suffixes
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k"),
} | ({"AVIF": (".avif",)} if features.check("avif") else {})
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)

Color = tuple[int, int, int]  # red, green, blue, 0..255

_CHANNELS_OF_MODE = {"1": 1, "L": 1, "LA": 1, "P": 3, "PA": 3, "RGB": 3, "RGBA": 3, "CMYK": 3, "YCbCr": 3}
_WORDS_OF_MODE = {
    "1": "black and white", "L": "grey", "LA": "grey", "P": "palette", "PA": "palette", "RGB": "colour", "RGBA": "colour",
    "CMYK": "CMYK", "YCbCr": "YCbCr",
}  # fmt: skip
_USUAL_SIDE_PX = 256  # the largest that messages propose
_RESAVE = "save it again with an image editor"
_WITHOUT_GREY = ("WEBP", "AVIF")  # formats that store grey as RGB, lossy with channels that may differ by 1 or 2
_GREY_TOLERANCE = 2
_FOREIGN = (  # what people find under the name of an image: start of the file, what it is, remedy
    (rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", "a HEIC image", "convert it to PNG or JPEG"),
    (rb"....ftypavi[fs]", "an AVIF image, which this Pillow cannot read", "pip install --upgrade pillow"),
    (rb"(\xff\x0a|\0\0\0\x0cJXL )", "a JPEG XL image", "convert it to PNG or JPEG"),
    (rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI ", "a video", "extract its frames as PNG"),
    (rb"\s*(<!doctype html|<html)", "a web page", "download the file again"),
    (rb"version https://git-lfs", "a Git-LFS pointer", "fetch the file with git lfs pull"),
    (rb"\s*(<\?xml|<svg)", "an SVG image or other XML", "convert it to PNG"),
    (rb"8BPS", "a Photoshop document", "convert it to PNG"),
    (rb"%PDF", "a PDF document", "convert it to PNG"),
    (rb"\0+$", "zeros only", "copy or download the file again"),
)
LOW_COMPRESSION = 1  # of PNG: far faster than the default and hardly larger
_TURNS = {  # from the EXIF orientation to upright; from 5 on the image lies on its side
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_KEYS = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")  # in Image.info


@dataclass(frozen=True)
class Layout:
    """Size and channels of an image after its EXIF rotation."""

    width: int
    height: int
    channels: int  # 1 = grey, 3 = colour

    def __str__(self) -> str:
        return f"{self.width}x{self.height} {'grey' if self.channels == 1 else 'RGB'}"


class LayoutError(ValueError):
    """A valid image of another size or number of channels than required."""


@dataclass(frozen=True)
class FileKind:
    """Format and colour mode of an image, in words."""

    file_format: str  # "PNG"; "pixels" = not as a file
    mode: str  # "grey", "colour with alpha", ...


def parse_color(text: str) -> Color:
    """Return the colour of --background, given by its CSS name or as #rrggbb. Raises ValueError."""
    with contextlib.suppress(ValueError):
        color = ImageColor.getrgb(text)
        if len(color) == 3:
            return color
    raise ValueError(
        f"--background={text!r} is not a colour; give a name such as white or grey, or #rrggbb such as #808080"
    )


def read_layout(file: IO[bytes], background: Color | None = None, may_be_grey: bool = True) -> Layout:
    """Return the layout that an image file declares.

    Args:
        file: Open at its start.
        background: Colour that `decode` will put behind transparent images; None = refuse them.
        may_be_grey: Read the pixels of formats without grey, to find out if they are grey; otherwise they are RGB.

    Raises:
        ValueError: Not an image, too large, or of a kind that a data set cannot hold.
    """
    with _open(file) as image:
        width, height = image.size
        channels = _channels(image, background, may_be_grey)
        orientation = _orientation(image)
        if image.format == "PNG" and width != height:
            orientation = _late_orientation(file) or orientation
        if orientation >= 5:
            width, height = height, width
        return Layout(width, height, channels)


def read_kind(file: IO[bytes]) -> FileKind:
    """Return the format and colour mode of an image file, open at its start; ValueError if it is none."""
    with _open(file) as image:
        mode = mode_16_bits(image)
        words = _WORDS_OF_MODE.get(mode or image.mode, f"mode {image.mode}")
        depth = "16-bit " if mode else ""
        alpha = " with alpha" if image.has_transparency_data and not _is_opaque(image) else ""
        return FileKind(image.format or "unknown", f"{depth}{words}{alpha}")


def common_layout(
    origins: Iterable[str],
    layouts: Iterable[Layout],
    resized: Callable[[Layout], Layout] = lambda layout: layout,
) -> Layout:
    """Return the layout for all images: the size they share once `resized`; grey if all are grey, else RGB.

    Raises ValueError: images of two sizes.
    """
    pairs = zip(origins, layouts, strict=True)
    first_origin, first = next(pairs)
    common = resized(first)
    for origin, layout in pairs:
        result = resized(layout)
        if (result.width, result.height) != (common.width, common.height):
            smallest = min(first.width, first.height, layout.width, layout.height, _USUAL_SIDE_PX)
            side = max(1 << smallest.bit_length() - 1, 8)
            raise ValueError(
                f"images must be of one size, but {first_origin} is {first.width}x{first.height} and {origin} is "
                f"{layout.width}x{layout.height}; resize them with dataset_tool.py --width={side} --height={side}, and "
                f"add --transform=center-crop to crop them to squares before"
            )
        if result.channels > common.channels:
            common = Layout(common.width, common.height, result.channels)
    return common


def decode(
    data: bytes, channels: int | None = None, background: Color | None = None, layout: Layout | None = None
) -> np.ndarray:
    """Return the pixels of an image file, upright, uint8 [height, width, channels].

    16 bits per channel become 8: the value / 257, rounded. CMYK becomes RGB without its colour profile. Of several
    frames the first is taken.

    Args:
        channels: 1 or 3; None = as many as the file has. Grey becomes RGB if 3 are asked for.
        background: Colour behind a transparent image; None = refuse it.
        layout: Required layout; another size is refused before pixels are read. None = any.

    Raises:
        ValueError: Damaged, of an unsupported kind, of another layout, or colour if 1 channel is asked for.
    """
    try:
        pixels = _decoded(data, channels, background, layout)
    except LayoutError:
        raise
    except ValueError:
        plain = without_metadata(data)
        if plain is None:
            raise
        pixels = _decoded(plain, channels, background, layout)
    if layout:
        check_layout(pixels, layout)
    return pixels


def check_layout(pixels: np.ndarray, layout: Layout) -> None:
    """Raise LayoutError unless an image, uint8 [height, width, channels], has become what its header declared."""
    if pixels.shape != (layout.height, layout.width, layout.channels):
        kind = "" if pixels.shape[2] == layout.channels else " grey" if pixels.shape[2] == 1 else " RGB"
        raise LayoutError(f"is {pixels.shape[1]}x{pixels.shape[0]}{kind} once decoded, not {layout}; {_RESAVE}")


def to_pillow(pixels: np.ndarray) -> Image.Image:
    """Return uint8 [height, width, channels] as an image: grey of 1 channel, RGB of 3."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def encode_png(pixels: np.ndarray) -> bytes:
    """Return a PNG file of uint8 [height, width, channels]; 1 channel is stored as grey, 3 as RGB."""
    output = io.BytesIO()
    to_pillow(pixels).save(output, format="png", compress_level=LOW_COMPRESSION)
    return output.getvalue()


def _decoded(data: bytes, channels: int | None, background: Color | None, layout: Layout | None) -> np.ndarray:
    with warnings.catch_warnings(action="ignore"), _open(io.BytesIO(data)) as image:
        if layout and sorted(image.size) != sorted((layout.width, layout.height)):  # it may be rotated
            raise LayoutError(f"is {image.width}x{image.height}, not {layout}; {_RESAVE}")
        is_deep = mode_16_bits(image) is not None  # unknown once pixels are loaded
        own_channels = _channels(image, background, may_be_grey=channels != 3)
        if channels == 1 and own_channels == 3 and not _looks_grey(image):
            raise ValueError("is in colour, among grey images")
        try:
            upright = _upright_8_bits(image, data, is_deep)
            if background is not None and upright.has_transparency_data:
                upright = _on_background(upright, background)
            pixels = np.asarray(upright.convert("L" if (channels or own_channels) == 1 else "RGB"))
        except Exception as error:  # decoders raise nearly anything on damaged data
            raise ValueError(f"is damaged ({error or type(error).__name__})") from error
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _open(file: IO[bytes]) -> Image.Image:
    try:
        with warnings.catch_warnings(action="ignore"):
            return Image.open(file, formats=list(FORMATS))
    except Image.DecompressionBombError as error:
        raise ValueError(f"is too large, perhaps a decompression bomb: {error}; make it smaller first") from error
    except Exception as error:  # readers of headers, too, raise nearly anything
        file.seek(0)
        data = file.read()
        if not data:
            raise ValueError("is empty (0 bytes); copy or download it again") from error
        plain = without_metadata(data)
        if plain is not None:
            return _open(io.BytesIO(plain))
        for start, kind, remedy in _FOREIGN:
            if re.match(start, data[:64], re.IGNORECASE | re.DOTALL):
                raise ValueError(f"is not an image but {kind}; {remedy}") from error
        raise ValueError("is not an image, or damaged") from error


def _channels(image: Image.Image, background: Color | None, may_be_grey: bool) -> int:
    """Return the channels that an opened file will have in a data set; ValueError for kinds that it cannot hold."""
    mode = mode_16_bits(image)
    channels = _CHANNELS_OF_MODE.get(mode or image.mode)
    if channels is None or (mode and "transparency" in image.info):  # a colour that stands for transparency
        raise ValueError(f"has pixels of kind {image.mode!r}; convert it to 8 bits per channel, grey or RGB, first")
    if may_be_grey and channels == 3 and image.format in _WITHOUT_GREY and _looks_grey(image):
        channels = 1
    if not image.has_transparency_data or (background is None and _is_opaque(image)):
        return channels
    if background is None:
        raise ValueError(
            "has transparency (an alpha channel), which a data set cannot hold; pack it with dataset_tool.py "
            "--background=white, or any other colour to put behind it"
        )
    return channels if len(set(background)) == 1 else 3


def _looks_grey(image: Image.Image) -> bool:
    try:
        channels = np.asarray(image.convert("RGB")).astype(np.int16)
    except Exception:  # damaged, which is reported when it is decoded
        return False
    return int(np.ptp(channels, axis=2).max()) <= _GREY_TOLERANCE


def _is_opaque(image: Image.Image) -> bool:
    try:
        return image.convert("RGBA").getchannel("A").getextrema() == (255, 255)
    except Exception:  # damaged
        return False


def _upright_8_bits(image: Image.Image, data: bytes, is_deep: bool) -> Image.Image:
    loaded = reduced_to_8_bits(data) if is_deep else image
    loaded.load()  # now the orientation is known even where it stands behind the pixels
    turn = _TURNS.get(_orientation(loaded))
    return loaded if turn is None else loaded.transpose(turn)


def _on_background(image: Image.Image, background: Color) -> Image.Image:
    canvas = Image.new("RGBA", image.size, (*background, 255))
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) to 8; 1 where there is none, or it cannot be read."""
    if image.format == "TIFF" or not any(key in image.info for key in _EXIF_KEYS):  # Pillow turns TIFF by itself
        return 1
    try:
        with warnings.catch_warnings(action="ignore"):
            exif = Image.Image.getexif(image)  # that of PNG would read the pixels
            orientation = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF, which does not keep anybody from looking at the image
        return 1
    return orientation if isinstance(orientation, int) and orientation in _TURNS else 1


def _late_orientation(file: IO[bytes]) -> int | None:
    """Return the EXIF orientation of a PNG file that has metadata behind its pixels, where Pillow looks only as it decodes."""
    try:
        metadata = late_metadata(file)
        return _orientation(_open(io.BytesIO(metadata))) if metadata else None
    except Exception:  # damaged, which is reported when it is decoded
        return None
