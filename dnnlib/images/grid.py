"""Draws images of any size side by side, in columns with headings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_MIN_CELL_PX, _MAX_CELL_PX = 64, 128  # of the longer side: smaller images are enlarged, larger ones reduced
_GAP_PX = 2
_FONT_PX = 12
_HEADING_PX = 20
_PAPER, _INK = (255, 255, 255), (40, 40, 40)


@dataclass(frozen=True)
class Column:
    """Images below each other."""

    heading: str  # "" = none
    images: Sequence[np.ndarray]  # uint8 [height, width, 1 or 3], each of its own size


def draw_grid(columns: Sequence[Column]) -> np.ndarray:
    """Return the columns as one image, uint8 [height, width, 3]; there must be at least one image."""
    sides = [max(pixels.shape[:2]) for column in columns for pixels in column.images]
    cell = min(max(sides) * _enlargement(max(sides)), _MAX_CELL_PX)
    step = cell + _GAP_PX
    top = _HEADING_PX if any(column.heading for column in columns) else 0
    rows = max(len(column.images) for column in columns)
    sheet = Image.new("RGB", (len(columns) * step + _GAP_PX, top + rows * step + _GAP_PX), _PAPER)
    for number, column in enumerate(columns):
        left = _GAP_PX + number * step
        _write_heading(sheet, column.heading, left, cell)
        for row, pixels in enumerate(column.images):
            image = _fitted(pixels, cell)
            x, y = left + (cell - image.width) // 2, top + _GAP_PX + row * step + (cell - image.height) // 2
            sheet.paste(image, (x, y))
    return np.asarray(sheet)


def _enlargement(side: int) -> int:
    return max(_MIN_CELL_PX // side, 1)


def _fitted(pixels: np.ndarray, cell: int) -> Image.Image:
    """Return an image in RGB whose longer side is at most a cell; small ones have every pixel repeated."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    side = max(image.size)
    if side > cell:
        image.thumbnail((cell, cell), Image.Resampling.LANCZOS)
        return image
    factor = min(_enlargement(side), cell // side)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _write_heading(sheet: Image.Image, text: str, left: int, width: int) -> None:
    """Write a heading above a column, cut off where the column ends."""
    font = ImageFont.load_default(size=_FONT_PX)
    while text and font.getlength(text) > width:
        text = text.rstrip("…")[:-1] + "…" if len(text) > 1 else ""
    ImageDraw.Draw(sheet).text((left + width / 2, _HEADING_PX / 2), text, fill=_INK, font=font, anchor="mm")
