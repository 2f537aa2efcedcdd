"""The built-in demo sets, drawn on the spot with Pillow's own font.

Single coloured digits on plain backgrounds, 32x32 RGB, and scenes of several on one canvas of any size, labelled by their
number: composition to learn from. Every image follows from (split, index), that of a scene from its size too; so any
prefix of a split is stable and the splits share no image.
"""

import colorsys
import functools
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dnnlib.images.codec import Layout
from dnnlib.sources.source_images import ArrayImage, ImageSource, SourceImage

SIZE_PX = 32  # of a single digit
SPLITS = {"train": (0, 6000), "score": (1, 1000)}  # name -> (entropy word of the split, number of images)
MAX_DIGITS = 5  # of a scene

_SUPERSAMPLE = 4
_FONT_PX = 4 * 26  # close to the size on the enlarged canvas, so that the affine map resamples near one to one
_MARGIN_PX = 1.5  # kept free on all sides of the final image
_LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114])
_SCENES = 100  # entropy word that tells scenes from single digits
_SCENE_SUPERSAMPLE = 2
_ATTEMPTS = 100  # to place a digit without overlap


def open_demo(split: str, max_images: int | None, scene_size: tuple[int, int] | None) -> ImageSource:
    """Return the first images of a split: scenes of this (width, height), or single digits.

    Raises ValueError: no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is unknown; the demo set has {', '.join(SPLITS)}")
    count = min(max_images or SPLITS[split][1], SPLITS[split][1])
    width, height = scene_size or (SIZE_PX, SIZE_PX)

    def images() -> Iterator[SourceImage]:
        drawn = scenes(split, width, height, count) if scene_size else digits(split, count)
        for index, (array, label) in enumerate(drawn):
            yield ArrayImage(f"demo image {index}", array, label)

    scene_names = tuple(f"{number} digit{'s' * (number > 1)}" for number in range(1, MAX_DIGITS + 1))
    names = scene_names if scene_size else tuple(map(str, range(10)))
    return ImageSource(count, images, True, names, Layout(width, height, 3))


def digits(split: str, count: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the first `count` (image, label) pairs of a split: uint8 [height, width, channels], label i % 10 of image i."""
    for index in range(count):
        rng = np.random.default_rng(np.random.SeedSequence((SPLITS[split][0], index)))
        yield draw_digit(index % 10, rng), index % 10


def draw_digit(label: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one digit, uint8 [height, width, channels]: stroke, outline, shape, place and colours come from `rng`."""
    stroke_px = int(rng.integers(1, 7))
    outline_px = int(rng.integers(4, 7)) if rng.random() < 0.35 else 0
    glyph = _glyph(label, stroke_px + outline_px)
    placement = _placement(glyph.size, rng)
    background, fill, outline = _colours(rng)
    image = np.broadcast_to(background, (SIZE_PX, SIZE_PX, 3))
    if outline_px:
        image = _blend(image, outline, _coverage(glyph, placement))
    image = _blend(image, fill, _coverage(_inner_glyph(label, stroke_px, outline_px), placement))
    return np.rint(image * 255).astype(np.uint8)


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=_FONT_PX)
    assert isinstance(font, ImageFont.FreeTypeFont)  # given a size, Pillow returns this or raises by itself
    return font


@functools.cache
def _glyph(label: int, stroke_px: int) -> Image.Image:
    """Return the digit's mask, widened by a stroke on all sides, on a canvas that just holds it (8-bit grey)."""
    left, top, right, bottom = _font().getbbox(str(label), stroke_width=stroke_px)
    canvas = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))  # 1 px of border keeps the edges smooth
    ImageDraw.Draw(canvas).text((1 - left, 1 - top), str(label), fill=255, font=_font(), stroke_width=stroke_px)
    return canvas


@functools.cache
def _inner_glyph(label: int, stroke_px: int, outline_px: int) -> Image.Image:
    """Return the digit's mask without its outline, on the canvas of the mask with outline."""
    canvas = Image.new("L", _glyph(label, stroke_px + outline_px).size)
    canvas.paste(_glyph(label, stroke_px), (outline_px, outline_px))
    return canvas


def _placement(glyph_size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return the affine map from canvas to glyph coordinates, [2, 3], that keeps the whole digit in the image."""
    angle, slant = np.deg2rad(rng.uniform(-8, 8)), rng.uniform(-0.25, 0.25)
    stretch = np.exp(rng.uniform(-0.32, 0.32) / 2)  # width against height, 0.73 to 1.38
    fullness, position = rng.uniform(0.78, 1.0), rng.random(2)

    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shape = rotate @ np.array([[1.0, slant], [0.0, 1.0]]) @ np.diag([stretch, 1 / stretch])
    extent = np.abs(shape) @ np.array(glyph_size)  # bounding box of the transformed glyph canvas
    room = (SIZE_PX - 2 * _MARGIN_PX) * _SUPERSAMPLE
    scale = fullness * room / extent.max()
    slack = room - extent * scale
    centre = _MARGIN_PX * _SUPERSAMPLE + extent * scale / 2 + position * slack

    inverse = np.linalg.inv(shape * scale)
    offset = np.array(glyph_size) / 2 - inverse @ centre
    return np.concatenate([inverse, offset[:, None]], axis=1)


def _coverage(glyph: Image.Image, placement: np.ndarray) -> np.ndarray:
    """Return how much of each final pixel the placed glyph covers, float 0..1 [height, width, 1]."""
    canvas = (SIZE_PX * _SUPERSAMPLE, SIZE_PX * _SUPERSAMPLE)
    placed = glyph.transform(canvas, Image.Transform.AFFINE, placement.ravel().tolist(), Image.Resampling.BILINEAR)
    return np.asarray(placed.reduce(_SUPERSAMPLE), dtype=np.float64)[:, :, None] / 255


def _colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return background, fill and outline, RGB 0..1: light digits of any hue on dark plain backgrounds of any hue."""
    hues = rng.random(3)
    dark, light, edge = rng.uniform([0.02, 0.60, 0.32], [0.14, 0.92, 0.44])
    return _colour(hues[0], dark), _colour(hues[1], light), _colour(hues[2], edge)


def _random_colour(rng: np.random.Generator, darkest: float, lightest: float) -> np.ndarray:
    """A saturated RGB colour, 0..1, of any hue and of a luma in a range."""
    return _colour(rng.random(), rng.uniform(darkest, lightest))


def _colour(hue: float, luma: float) -> np.ndarray:
    """Return the most saturated RGB colour, 0..1, of this hue and luma."""
    pure = np.array(colorsys.hsv_to_rgb(hue, 1.0, 1.0))
    pure_luma = float(pure @ _LUMA_WEIGHTS)
    if luma <= pure_luma:
        return pure * (luma / pure_luma)
    return 1 - (1 - pure) * ((1 - luma) / (1 - pure_luma))


def _blend(image: np.ndarray, colour: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """An image with a colour where the coverage is 1, 0..1 [height, width, 3]."""
    return image + (colour - image) * coverage


def scenes(split: str, width: int, height: int, count: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the first `count` (image, label) pairs of a split; image i shows i % 5 + 1 digits and has label i % 5.

    Images are uint8 [height, width, 3].
    """
    split_id = SPLITS[split][0]
    for index in range(count):
        label = index % MAX_DIGITS
        seed = np.random.SeedSequence((_SCENES, split_id, index, width, height))
        yield draw_scene(label + 1, width, height, np.random.default_rng(seed)), label


def draw_scene(count: int, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Draw light digits, smaller than a third of the canvas, on a dark vertical gradient: uint8 [height, width, 3]."""
    top, bottom = (_random_colour(rng, 0.02, 0.16) for _ in range(2))
    image = np.broadcast_to(top + (bottom - top) * np.linspace(0, 1, height)[:, None, None], (height, width, 3))
    taken: list[tuple[float, float, float]] = []
    for _ in range(count):
        size = rng.uniform(0.2, 0.33) * min(width, height)
        for _ in range(_ATTEMPTS):
            x, y = rng.uniform(0, width - size), rng.uniform(0, height - size)
            if all(max(abs(x - a), abs(y - b)) > (size + c) / 2 for a, b, c in taken):
                break
        taken.append((x, y, size))
        mask = _digit_mask(int(rng.integers(10)), size, (x, y), rng.uniform(-15, 15), (width, height))
        image = _blend(image, _random_colour(rng, 0.6, 0.95), mask)
    return np.rint(image * 255).astype(np.uint8)


def _digit_mask(
    digit: int, size: float, place: tuple[float, float], angle: float, canvas: tuple[int, int]
) -> np.ndarray:
    """Coverage of each pixel by a digit, 0..1 [height, width, 1]; size and place (x, y of its box) in px, angle in degrees."""
    side = max(round(size * _SCENE_SUPERSAMPLE), 4)
    glyph = Image.new("L", (side, side))
    font = ImageFont.load_default(size=side)
    centre = (side / 2, side / 2)
    ImageDraw.Draw(glyph).text(centre, str(digit), fill=255, font=font, anchor="mm", stroke_width=side // 16)
    whole = Image.new("L", (canvas[0] * _SCENE_SUPERSAMPLE, canvas[1] * _SCENE_SUPERSAMPLE))
    left, top = (round(value * _SCENE_SUPERSAMPLE) for value in place)
    whole.paste(glyph.rotate(angle, Image.Resampling.BILINEAR), (left, top))
    return np.asarray(whole.reduce(_SCENE_SUPERSAMPLE), dtype=np.float64)[:, :, None] / 255
