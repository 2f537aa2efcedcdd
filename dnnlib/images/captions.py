"""Sheets: enlarged images in rows, with captions."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dnnlib.images.animation import enlarged

MIN_CELL_PX = 96  # images are enlarged until their longer side is at least this
_CAPTION_PX, _TEXT_PX, _GAP_PX = 15, 11, 4
_PAPER, _INK = 255, 0

Cell = tuple[np.ndarray, str] | None  # uint8 [height, width, 1 or 3] and its caption; None = left empty


def enlargement(height: int, width: int) -> int:
    """The integer factor by which images of this size are enlarged."""
    return -(-MIN_CELL_PX // max(height, width))


def as_colour(pixels: np.ndarray) -> np.ndarray:
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def sheet(rows: Sequence[Sequence[Cell]]) -> np.ndarray:
    """Draw images of one size in rows, with captions above them: uint8 [height, width, 3].

    Rows may differ in length. A row without captions leaves no space for them.
    """
    cells = [cell for row in rows for cell in row if cell is not None]
    first = cells[0][0]
    factor = enlargement(*first.shape[:2])
    font = ImageFont.load_default(_TEXT_PX)
    caption_width = max(math.ceil(font.getlength(caption)) for _, caption in cells)
    height, width = first.shape[0] * factor, max(first.shape[1] * factor, caption_width)
    captions_px = [_CAPTION_PX if any(cell and cell[1] for cell in row) else 0 for row in rows]
    columns = max(len(row) for row in rows)
    size = (columns * (width + _GAP_PX) + _GAP_PX, len(rows) * (height + _GAP_PX) + _GAP_PX + sum(captions_px))
    page = Image.new("RGB", size, (_PAPER,) * 3)
    draw = ImageDraw.Draw(page)
    top = _GAP_PX
    for row, caption_px in zip(rows, captions_px, strict=True):
        for column, cell in enumerate(row):
            if cell is None:
                continue
            left = _GAP_PX + column * (width + _GAP_PX)
            draw.text((left, top), cell[1], fill=(_INK,) * 3, font=font)
            page.paste(Image.fromarray(as_colour(enlarged(cell[0], factor))), (left, top + caption_px))
        top += height + caption_px + _GAP_PX
    return np.asarray(page)
