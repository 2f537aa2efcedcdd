"""Built-in scenes: several coloured digits on one canvas of any size, labelled by their number; composition to learn from.

Every image follows from (split, index, size) alone.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dnnlib.sources.demo_digits import SPLITS, blend, random_color, split_size

MAX_DIGITS = 5
NAMES = tuple(f"{count} digit{'s' * (count > 1)}" for count in range(1, MAX_DIGITS + 1))
_SCENES = 100  # entropy word that tells scenes from single digits
_SUPERSAMPLE = 2
_ATTEMPTS = 100  # to place a digit without overlap


def scenes(split: str, width: int, height: int, count: int | None = None) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the first `count` (image, label) pairs of a split; image i shows i % 5 + 1 digits and has label i % 5.

    Images are uint8 [height, width, 3].
    """
    split_id = SPLITS[split][0]
    for index in range(split_size(split) if count is None else count):
        label = index % MAX_DIGITS
        seed = np.random.SeedSequence((_SCENES, split_id, index, width, height))
        yield draw_scene(label + 1, width, height, np.random.default_rng(seed)), label


def draw_scene(count: int, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Draw light digits, smaller than a third of the canvas, on a dark vertical gradient: uint8 [height, width, 3]."""
    top, bottom = (random_color(rng, 0.02, 0.16) for _ in range(2))
    image = np.broadcast_to(top + (bottom - top) * np.linspace(0, 1, height)[:, None, None], (height, width, 3))
    taken: list[tuple[float, float, float]] = []
    for _ in range(count):
        size = rng.uniform(0.2, 0.33) * min(width, height)
        for _ in range(_ATTEMPTS):
            x, y = rng.uniform(0, width - size), rng.uniform(0, height - size)
            if all(max(abs(x - a), abs(y - b)) > (size + c) / 2 for a, b, c in taken):
                break
        taken.append((x, y, size))
        mask = digit_mask(int(rng.integers(10)), size, (x, y), rng.uniform(-15, 15), (width, height))
        image = blend(image, random_color(rng, 0.6, 0.95), mask)
    return np.rint(image * 255).astype(np.uint8)


def digit_mask(
    digit: int, size: float, place: tuple[float, float], angle: float, canvas: tuple[int, int]
) -> np.ndarray:
    """Coverage of each pixel by a digit, 0..1 [height, width, 1]; size and place (x, y of its box) in px, angle in degrees."""
    side = max(round(size * _SUPERSAMPLE), 4)
    glyph = Image.new("L", (side, side))
    font = ImageFont.load_default(size=side)
    centre = (side / 2, side / 2)
    ImageDraw.Draw(glyph).text(centre, str(digit), fill=255, font=font, anchor="mm", stroke_width=side // 16)
    whole = Image.new("L", (canvas[0] * _SUPERSAMPLE, canvas[1] * _SUPERSAMPLE))
    left, top = (round(value * _SUPERSAMPLE) for value in place)
    whole.paste(glyph.rotate(angle, Image.Resampling.BILINEAR), (left, top))
    return np.asarray(whole.reduce(_SUPERSAMPLE), dtype=np.float64)[:, :, None] / 255
