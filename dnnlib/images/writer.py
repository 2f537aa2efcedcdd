"""Writes images, also side by side without gaps; each file appears whole or not at all."""

import os
from pathlib import Path

import numpy as np

from dnnlib.files import atomic_write, temporary_name
from dnnlib.images.codec import LOW_COMPRESSION, to_pillow

QUALITY = 95  # of JPEG and WebP; PNG has none


def format_of(path: Path) -> str:
    return path.suffix[1:].upper().replace("JPG", "JPEG")


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write an image, uint8 [height, width, 1 or 3], as PNG, JPEG or WebP; the file takes its name when it is whole.

    Unlike `dnnlib.files.atomic_write` it neither waits for the disk nor looks for what killed processes left, either of
    which would take longer than all the rest.
    """
    temporary = temporary_name(path)
    try:
        to_pillow(pixels).save(temporary, format=format_of(path), quality=QUALITY, compress_level=LOW_COMPRESSION)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(f"{path} cannot be written: {error.strerror or error}") from error
        raise


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
    with atomic_write(path) as file:
        to_pillow(grid_pixels(images, columns)).save(file, format=format_of(path), quality=QUALITY)
