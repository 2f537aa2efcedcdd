"""Writes images; each file appears whole or not at all."""

import os
from pathlib import Path

import numpy as np

from dnnlib.files import temporary_name
from dnnlib.images.codec import LOW_COMPRESSION, to_pillow

QUALITY = 95  # of JPEG and WebP


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write an image, uint8 [height, width, 1 or 3], as PNG, JPEG or WebP; the file takes its name when it is whole.

    Unlike `dnnlib.files.atomic_write` it neither waits for the disk nor looks for what killed processes left, either of
    which would take longer than all the rest.
    """
    file_format = path.suffix[1:].upper().replace("JPG", "JPEG")
    temporary = temporary_name(path)
    try:
        to_pillow(pixels).save(temporary, format=file_format, quality=QUALITY, compress_level=LOW_COMPRESSION)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(f"{path} cannot be written: {error.strerror or error}") from error
        raise
