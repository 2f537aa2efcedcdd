import numpy as np
import pytest
from PIL import Image

from dnnlib.images.codec import Layout
from dnnlib.packing.transform import ImageTransform

RNG = np.random.default_rng(0)


def _noise(width: int, height: int, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


def _resized(pixels: np.ndarray, width: int, height: int, resample: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((width, height), resample))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("transform", "size"),
    [
        (ImageTransform(), (13, 7)),
        (ImageTransform(width=5), (5, 7)),
        (ImageTransform(height=9), (13, 9)),
        (ImageTransform(width=5, height=9), (5, 9)),
        (ImageTransform("center-crop", 4, 4), (4, 4)),
        (ImageTransform("center-crop", 4, 6), (4, 6)),
        (ImageTransform("center-crop-wide", 8, 3), (8, 8)),
    ],
)
def test_output_is_what_apply_gives(transform: ImageTransform, size: tuple[int, int], channels: int) -> None:
    pixels = transform.apply(_noise(13, 7, channels))
    assert (pixels.dtype, pixels.shape) == (np.uint8, (size[1], size[0], channels))
    assert transform.output(Layout(13, 7, channels)) == Layout(*size, channels)


@pytest.mark.parametrize(("name", "resample"), [("lanczos", Image.Resampling.LANCZOS), ("box", Image.Resampling.BOX)])
def test_filters(name: str, resample: Image.Resampling) -> None:
    pixels = _noise(13, 7)
    transform = ImageTransform(width=5, height=4, resize_filter=name)
    assert np.array_equal(transform.apply(pixels), _resized(pixels, 5, 4, resample))


@pytest.mark.parametrize(("width", "height", "left", "top"), [(13, 7, 3, 0), (7, 13, 0, 3), (12, 7, 2, 0)])
def test_center_crop_takes_the_middle_square(width: int, height: int, left: int, top: int) -> None:
    pixels = _noise(width, height)
    middle = pixels[top : top + 7, left : left + 7]
    assert np.array_equal(ImageTransform("center-crop", 7, 7).apply(pixels), middle)
    smaller = ImageTransform("center-crop", 4, 5).apply(pixels)
    assert np.array_equal(smaller, _resized(middle, 4, 5, Image.Resampling.LANCZOS))


@pytest.mark.parametrize(
    ("size", "left", "top"),
    [((16, 8), 0, 0), ((16, 12), 0, 2), ((20, 8), 2, 0)],
)
def test_center_crop_wide_is_letterboxed(size: tuple[int, int], left: int, top: int) -> None:
    pixels = _noise(*size)
    square = ImageTransform("center-crop-wide", 16, 8).apply(pixels)
    assert square.shape == (16, 16, 3)
    assert np.array_equal(square[4:12], pixels[top : top + 8, left : left + 16])
    assert not square[:4].any()
    assert not square[12:].any()
    smaller = ImageTransform("center-crop-wide", 8, 4).apply(pixels)
    middle = pixels[top : top + 8, left : left + 16]
    assert np.array_equal(smaller[2:6], _resized(middle, 8, 4, Image.Resampling.LANCZOS))


def test_enlarges() -> None:
    layout = Layout(13, 7, 3)
    assert not ImageTransform().enlarges(layout)
    assert not ImageTransform("center-crop", 7, 7).enlarges(layout)
    assert ImageTransform("center-crop", 8, 7).enlarges(layout)
    assert ImageTransform(width=14).enlarges(layout)
    assert ImageTransform("center-crop-wide", 14, 6).enlarges(layout)


def test_stretches() -> None:
    layout = Layout(400, 300, 3)
    assert ImageTransform(None, 64, 64).stretches(layout) and ImageTransform(width=64).stretches(layout)
    assert not ImageTransform().stretches(layout) and not ImageTransform(None, 64, 48).stretches(layout)
    assert not ImageTransform(None, 101, 75).stretches(layout)  # rounding
    assert not ImageTransform("center-crop", 64, 64).stretches(layout)
    assert not ImageTransform("center-crop-wide", 64, 32).stretches(layout)
    assert not ImageTransform("pad", 512, 512).stretches(layout)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
def test_extreme_shapes(size: tuple[int, int]) -> None:
    for kind in ("center-crop", "center-crop-wide"):
        assert ImageTransform(kind, 6, 4).apply(_noise(*size)).shape[1] == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("center-crop", 8, None), "--transform=center-crop needs .*--width and --height"),
        (("center-crop-wide", None, 8), "--transform=center-crop-wide needs"),
        (("center-crop-wide", 4, 8), "--height=8 exceeds --width=4"),
        (("pad", 32, None), "--transform=pad needs the size of the new images"),
    ],
)
def test_bad_combinations(arguments: tuple[str, int | None, int | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageTransform(*arguments)


@pytest.mark.parametrize("channels", [1, 3])
def test_pad_puts_black_around_and_changes_no_pixel(channels: int) -> None:
    pixels = _noise(28, 27, channels)
    padded = ImageTransform("pad", 32, 32).apply(pixels)
    assert padded.shape == (32, 32, channels)
    assert np.array_equal(padded[2:29, 2:30], pixels)
    assert padded.sum() == pixels.sum()
    assert not ImageTransform("pad", 32, 32).enlarges(Layout(28, 27, channels))
    assert np.array_equal(ImageTransform("pad", 28, 27).apply(pixels), pixels)


def test_pad_refuses_images_that_are_larger() -> None:
    with pytest.raises(ValueError, match=r"is 33x8, more than the 32x32 that --transform=pad fills up; give a larger"):
        ImageTransform("pad", 32, 32).apply(_noise(33, 8))
