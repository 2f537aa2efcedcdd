import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from dnnlib.images.codec import (
    FORMATS,
    SUFFIXES,
    Layout,
    common_layout,
    decode,
    encode_png,
    parse_color,
    read_kind,
    read_layout,
)

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


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(10))
def test_every_exif_orientation(orientation: int, file_format: str) -> None:
    data = _file(Image.fromarray(RGB), file_format, exif=_exif(orientation))
    with Image.open(io.BytesIO(data)) as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened))
    assert np.array_equal(decode(data), upright)
    assert read_layout(io.BytesIO(data)) == Layout(upright.shape[1], upright.shape[0], 3)


def test_damaged_exif_is_no_obstacle() -> None:
    data = _file(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0nonsense")
    assert read_layout(io.BytesIO(data)) == Layout(6, 4, 3)
    assert decode(data).shape == (4, 6, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_refused(mode: str) -> None:
    data = _file(Image.fromarray(np.dstack([RGB, RGB[:, :, 0]])).convert(mode), "PNG")
    for read in (decode, lambda content: read_layout(io.BytesIO(content))):
        with pytest.raises(ValueError, match=r"transparency.*--background=white"):
            read(data)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_alpha_that_hides_nothing_is_no_obstacle(mode: str) -> None:
    image = Image.fromarray(RGB).convert("RGBA").convert(mode)
    unused = {"P": bytes([255] * 9), "RGB": (1, 2, 3)}
    data = _file(image, "PNG", **({"transparency": unused[mode]} if mode in unused else {}))
    channels = 1 if mode == "LA" else 3
    assert read_layout(io.BytesIO(data)) == Layout(6, 4, channels)
    colours = np.asarray(image.convert("L" if mode == "LA" else "RGB"))
    assert np.array_equal(decode(data), colours.reshape(4, 6, channels))
    assert "alpha" not in read_kind(io.BytesIO(data)).mode


@pytest.mark.parametrize(("mode", "file_format"), [("RGBA", "PNG"), ("RGBA", "WEBP"), ("LA", "PNG"), ("RGBA", "TIFF")])
def test_background_shows_through(mode: str, file_format: str) -> None:
    alpha = np.repeat(np.array([[0], [255], [51], [128]], np.uint8), 6, axis=1)
    image = Image.fromarray(np.dstack([RGB, alpha])).convert(mode)
    data = _file(image, file_format, **({"lossless": True, "exact": True} if file_format == "WEBP" else {}))
    colours = np.asarray(image.convert("RGB"))
    background = np.array([10, 200, 30])
    decoded = decode(data, background=(10, 200, 30))
    assert read_layout(io.BytesIO(data), (10, 200, 30)) == Layout(6, 4, 3)
    assert (decoded[0] == background).all()
    assert np.array_equal(decoded[1], colours[1])
    for row, share in ((2, 51 / 255), (3, 128 / 255)):
        assert abs(decoded[row] - (share * colours[row] + (1 - share) * background)).max() <= 1


def test_grey_with_alpha_stays_grey_on_grey() -> None:
    data = _file(Image.fromarray(np.dstack([RGB[:, :, :1], np.full((4, 6, 1), 255, np.uint8)])), "PNG")
    assert read_layout(io.BytesIO(data), (128, 128, 128)) == Layout(6, 4, 1)
    assert np.array_equal(decode(data, background=(128, 128, 128)), RGB[:, :, :1])
    assert decode(data, background=(255, 0, 0)).shape == (4, 6, 3)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1"])
def test_transparent_colour(mode: str) -> None:
    image = Image.new(mode, (6, 4), 0)
    data = _file(image, "PNG", transparency=(0, 0, 0) if mode == "RGB" else 0)
    with pytest.raises(ValueError, match="transparency"):
        read_layout(io.BytesIO(data))
    assert (decode(data, background=(77, 77, 77)) == 77).all()


def test_colours() -> None:
    assert parse_color("white") == (255, 255, 255)
    assert parse_color("#0180fF") == (1, 128, 255)
    for text in ("refuse", "#01", "#01020304", ""):
        with pytest.raises(ValueError, match=f"{text!r} is not a colour"):
            parse_color(text)


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])  # MPO: JPEG of two cameras
def test_first_frame_is_taken(file_format: str) -> None:
    frames = [Image.new("RGB", (16, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = _file(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    assert read_layout(io.BytesIO(data)) == Layout(16, 8, 3)
    assert abs(decode(data).astype(int) - (255, 0, 0)).max() <= (4 if file_format == "MPO" else 0)


@pytest.mark.parametrize("start", [b"IDAT", b"IEND"])
def test_decompression_bombs_are_refused(start: bytes) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = struct.pack(">I", 13) + header + struct.pack(">II", zlib.crc32(header), 4) + start + bytes(8)
    data = b"\x89PNG\r\n\x1a\n" + chunks
    for read in (decode, lambda content: read_layout(io.BytesIO(content))):
        with pytest.raises(ValueError, match=r"bomb: .*2500000000 pixels.*make it smaller"):
            read(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_file(Image.new("LAB", (6, 4)), "TIFF"), "kind 'LAB'"),
        (_file(Image.fromarray(RGB).resize((64, 64)), "JPEG")[:-100], "is damaged"),
        (encode_png(RGB)[:60], "is damaged"),
    ],
)
def test_other_kinds_of_colour_and_damaged_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode(data)


def test_common_layout() -> None:
    layouts = [Layout(6, 4, 1), Layout(6, 4, 3), Layout(6, 4, 1)]
    assert common_layout("abc", layouts) == Layout(6, 4, 3)
    assert common_layout("ac", layouts[::2]) == Layout(6, 4, 1)
    with pytest.raises(ValueError, match=r"a is 6x4 and d is 4x6; resize.*--width=8 --height=8.*center-crop"):
        common_layout("abcd", [*layouts, Layout(4, 6, 1)])
    assert common_layout("ab", [Layout(6, 4, 1), Layout(4, 6, 3)], lambda old: Layout(2, 2, old.channels)).width == 2


def test_cmyk_jpeg() -> None:
    image = Image.new("CMYK", (16, 16), (0, 200, 250, 10))
    assert abs(decode(_file(image, "JPEG")).astype(int) - np.asarray(image.convert("RGB"))).max() <= 4


@pytest.mark.parametrize("file_format", ["EPS", "PDF", "ICO", "TGA"])
def test_other_formats_are_not_opened_at_all(file_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow goes by the content, not by the name, and has Ghostscript run what is in an EPS file."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *arguments: pytest.fail("was run"))
    data = _file(Image.fromarray(RGB).resize((32, 32)), file_format)
    for read in (decode, lambda content: read_layout(io.BytesIO(content))):
        with pytest.raises(ValueError, match="is not an image"):
            read(data)


def test_decoding_to_a_layout() -> None:
    data = encode_png(RGB)
    assert np.array_equal(decode(data, 3, layout=Layout(6, 4, 3)), RGB)
    with pytest.raises(ValueError, match="is 6x4, not 6x5 RGB; save it again"):
        decode(data, 3, layout=Layout(6, 5, 3))
    with pytest.raises(ValueError, match="is 6x4 once decoded, not 4x6 RGB"):  # the same pixels, not turned
        decode(data, 3, layout=Layout(4, 6, 3))


def test_every_format_is_read_by_its_suffixes() -> None:
    colours = np.array([[[255, 0, 0], [0, 0, 255]], [[0, 128, 0], [255, 255, 255]]], np.uint8)
    blocks = colours.repeat(16, 0).repeat(16, 1)
    for file_format, suffixes in FORMATS.items():
        assert set(suffixes) <= set(SUFFIXES)
        pixels = decode(_file(Image.fromarray(blocks), file_format, quality=95))
        assert abs(pixels[4::16, 4::16].astype(int) - blocks[4::16, 4::16]).max() <= 16, file_format
    assert {".jfif", ".jpe", ".avif", ".jp2"} <= set(SUFFIXES)


def _with_chunks(png: bytes, *chunks: tuple[bytes, bytes], at: bytes = b"IEND") -> bytes:
    """Return a PNG with more chunks before its pixels or its end."""
    made = b"".join(len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4) for kind, data in chunks)
    return png.replace(png[png.index(at) - 4 :], made + png[png.index(at) - 4 :])


def _png_with(*chunks: tuple[bytes, bytes], at: bytes = b"IDAT") -> bytes:
    return _with_chunks(encode_png(RGB), *chunks, at=at)


XMP = b'<rdf tiff:Orientation="6"/>'


@pytest.mark.parametrize(
    "chunk",
    [
        (b"eXIf", _exif(6).tobytes()[6:]),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n9\n" + _exif(6).tobytes().hex().encode())),
    ],
    ids=["eXIf", "XMP", "compressed XMP", "profile"],
)
def test_orientation_of_a_png_is_found_behind_its_pixels(chunk: tuple[bytes, bytes]) -> None:
    for at in (b"IDAT", b"IEND"):
        data = _png_with(chunk, at=at)
        assert read_layout(io.BytesIO(data)) == Layout(4, 6, 3)
        assert np.array_equal(decode(data, layout=Layout(4, 6, 3)), np.rot90(RGB, -1))


def test_orientation_behind_the_pixels_counts_as_in_decoding() -> None:
    turned, upright = ((b"eXIf", _exif(number).tobytes()[6:]) for number in (6, 1))
    early = _png_with(turned)
    late_again = _png_with(upright, at=b"IEND")
    wrong_checksum = bytearray(_png_with(turned, at=b"IEND"))
    wrong_checksum[-13] ^= 1
    variants = [
        early[: early.index(b"IEND") - 4] + late_again[late_again.index(b"eXIf") - 4 :],
        _with_chunks(
            _file(Image.fromarray(RGB), "PNG", save_all=True, append_images=[Image.new("RGB", (6, 4))]), turned
        ),
        _png_with((b"eXIf", b"damaged"), at=b"IEND"),
        _png_with(turned, (b"zTXt", b"a\0\0damaged"), at=b"IEND"),
        bytes(wrong_checksum),
    ]
    for data in variants:
        layout = read_layout(io.BytesIO(data))
        decode(data, layout=layout)  # or it would raise an error


LARGE_TEXT = zlib.compress(b"x" * (2**20 + 10))


@pytest.mark.parametrize("at", [b"IDAT", b"IEND"])
@pytest.mark.parametrize(
    "chunk",
    [
        (b"zTXt", b"workflow\0\0" + LARGE_TEXT),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE_TEXT),
        (b"tEXt", b"prompt\0" + b"x" * 70_000_000),
        (b"iCCP", b"profile\0\0" + LARGE_TEXT),
        (b"zTXt", b"Raw profile type exif\0\0damaged"),
        (b"pHYs", b"short"),
        (b"acTL", b"damaged"),
    ],
    ids=["zTXt", "XMP", "tEXt", "profile", "exif", "pHYs", "animation"],
)
def test_what_surrounds_the_pixels_of_a_png_decides_nothing(chunk: tuple[bytes, bytes], at: bytes) -> None:
    data = _png_with(chunk, at=at)
    assert read_layout(io.BytesIO(data)) == Layout(6, 4, 3)
    assert np.array_equal(decode(data), RGB)


@pytest.mark.parametrize("file_format", ["WEBP", "AVIF"])
@pytest.mark.parametrize("lossless", [False, True])
def test_formats_without_grey_are_grey_if_their_channels_are_equal(file_format: str, lossless: bool) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (32, 48), dtype=np.uint8)
    data = _file(Image.fromarray(grey), file_format, lossless=lossless, quality=95)
    assert read_layout(io.BytesIO(data)) == Layout(48, 32, 1)
    pixels = decode(data)
    assert pixels.shape == (32, 48, 1)
    assert abs(pixels[..., 0].astype(int) - grey).mean() < 12
    assert decode(data, 3).shape == (32, 48, 3)
    colour = _file(Image.new("RGB", (48, 32), (128, 120, 128)), file_format, lossless=lossless)
    assert read_layout(io.BytesIO(colour)) == Layout(48, 32, 3)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"", "is empty"),
        (b"\xff\x0a" + bytes(50), "is not an image but a JPEG XL image"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "a JPEG XL image"),
        (b"\0\0\0\x18ftypmp42" + bytes(50), "a video"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image; convert it to PNG or JPEG"),
        (b"\n<!DOCTYPE HTML><title>404</title>", "a web page; download the file again"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git-LFS pointer; fetch the file with git lfs pull"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'>", "an SVG image"),
        (b"8BPS\0\1", "a Photoshop document"),
        (b"%PDF-1.7", "a PDF document"),
        (bytes(500), "zeros only"),
    ],
)
def test_other_files_under_the_name_of_an_image_are_recognised(start: bytes, message: str) -> None:
    for read in (decode, lambda content: read_layout(io.BytesIO(content))):
        with pytest.raises(ValueError, match=message):
            read(start)
