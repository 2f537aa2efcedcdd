"""Images of one size side by side, without gaps."""

from pathlib import Path

import numpy as np
from PIL import Image

from dnnlib.files import atomic_write
from dnnlib.images.writer import QUALITY


def grid_pixels(images: np.ndarray, columns: int) -> np.ndarray:
    """Images [count, channels, height, width] row by row: [rows * height, columns * width, channels]; 0 where one is missing."""
    count, channels, height, width = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    cells = np.zeros((rows * columns, channels, height, width), images.dtype)
    cells[:count] = images
    cells = cells.reshape(rows, columns, channels, height, width)
    return cells.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)


def save_grid(path: Path, images: np.ndarray, columns: int) -> None:
    """Write uint8 images [count, channels, height, width] as one PNG, JPEG or WebP image, row by row."""
    pixels = grid_pixels(images, columns)
    file_format = path.suffix[1:].upper().replace("JPG", "JPEG")
    with atomic_write(path) as file:
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        image.save(file, format=file_format, quality=QUALITY)  # PNG has no quality
