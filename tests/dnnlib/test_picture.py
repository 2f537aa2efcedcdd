import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from dnnlib.picture import Layout, common_layout, decode, encode_png, read_layout

RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def _file(image: Image.Image, file_format: str, **options: object) -> bytes:
    output = io.BytesIO()
    image.save(output, format=file_format, **options)
    return output.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_png_keeps_every_pixel(channels: int) -> None:
    pixels = RGB[:, :, :channels]
    data = encode_png(pixels)
    assert np.array_equal(decode(data), pixels)
    assert read_layout(io.BytesIO(data)) == Layout(6, 4, channels)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "WEBP", "PPM"])
def test_lossless_formats(file_format: str) -> None:
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = _file(Image.fromarray(RGB), file_format, **options)
    assert np.array_equal(decode(data), RGB)
    assert read_layout(io.BytesIO(data)) == Layout(6, 4, 3)


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("P", 3), ("CMYK", 3)])
def test_other_modes_become_grey_or_rgb(mode: str, channels: int) -> None:
    image = Image.fromarray(RGB).convert(mode)
    data = _file(image, "TIFF")
    assert read_layout(io.BytesIO(data)) == Layout(6, 4, channels)
    assert np.array_equal(decode(data).squeeze(), np.asarray(image.convert("L" if channels == 1 else "RGB")))


def test_grey_becomes_rgb_if_asked_but_not_the_reverse() -> None:
    grey = RGB[:, :, :1]
    assert np.array_equal(decode(encode_png(grey), 3), grey.repeat(3, axis=2))
    with pytest.raises(ValueError, match="in colour"):
        decode(encode_png(RGB), 1)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation_is_applied(file_format: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned clockwise
    black_left = np.zeros((16, 32, 3), np.uint8)
    black_left[:, 16:] = 255
    data = _file(Image.fromarray(black_left), file_format, exif=exif)
    assert decode(data).shape == (32, 16, 3)
    assert decode(data)[:12].max() < 40 < 215 < decode(data)[20:].min()  # black is at the top now
    if file_format != "PNG":  # there the rotation may stand behind the pixels
        assert read_layout(io.BytesIO(data)) == Layout(16, 32, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_refused(mode: str) -> None:
    image = Image.fromarray(RGB).convert("RGBA").convert(mode)
    data = _file(image, "PNG", **({"transparency": 0} if mode == "P" else {}))
    for read in (decode, lambda content: read_layout(io.BytesIO(content))):
        with pytest.raises(ValueError, match=r"transparency.*mogrify"):
            read(data)


def test_16_bit_is_refused() -> None:
    data = _file(Image.fromarray(RGB[:, :, 0].astype(np.uint16)), "PNG")
    with pytest.raises(ValueError, match="8 bits"):
        decode(data)


def test_damaged_files_are_refused() -> None:
    with pytest.raises(ValueError, match="is not a picture"):
        read_layout(io.BytesIO(b"<html>not found</html>"))
    jpeg = _file(Image.fromarray(RGB).resize((64, 64)), "JPEG")
    with pytest.raises(ValueError, match="is damaged"):
        decode(jpeg[:-100])
    with pytest.raises(ValueError, match="is damaged"):
        decode(encode_png(RGB)[:60])


def test_common_layout() -> None:
    layouts = [Layout(6, 4, 1), Layout(6, 4, 3), Layout(6, 4, 1)]
    assert common_layout("abc", layouts) == Layout(6, 4, 3)
    assert common_layout("ac", layouts[::2]) == Layout(6, 4, 1)
    with pytest.raises(ValueError, match=r"a is 6x4 and d is 4x6; resize"):
        common_layout("abcd", [*layouts, Layout(4, 6, 1)])
