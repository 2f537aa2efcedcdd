"""Images of one size side by side, without gaps."""

from pathlib import Path

import numpy as np

from dnnlib.files import atomic_write
from dnnlib.images.codec import to_pillow
from dnnlib.images.writer import QUALITY


def grid_pixels(images: np.ndarray, columns: int) -> np.ndarray:
    """Images [count, channels, height, width] row by row: [rows * height, columns * width, channels]; 0 where one is missing."""
    count, channels, height, width = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    cells = np.pad(images, [(0, rows * columns - count), (0, 0), (0, 0), (0, 0)])
    cells = cells.reshape(rows, columns, channels, height, width)
    return cells.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)


def save_grid(path: Path, images: np.ndarray, columns: int) -> None:
    """Write uint8 images [count, channels, height, width] as one PNG, JPEG or WebP image, row by row."""
    file_format = path.suffix[1:].upper().replace("JPG", "JPEG")
    with atomic_write(path) as file:
        to_pillow(grid_pixels(images, columns)).save(file, format=file_format, quality=QUALITY)  # PNG has no quality
