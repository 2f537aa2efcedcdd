"""Writes images; each file appears whole or not at all."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from dnnlib.files import temporary_name

QUALITY = 95  # of JPEG and WebP
_LOW_COMPRESSION = 1  # of PNG: several times faster than the default, and hardly larger


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write an image, uint8 [height, width, 1 or 3], as PNG, JPEG or WebP; the file takes its name when it is whole.

    Unlike `dnnlib.files.atomic_write` it neither waits for the disk nor looks for what killed processes left, either of
    which would take longer than all the rest.
    """
    file_format = path.suffix[1:].upper().replace("JPG", "JPEG")
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    temporary = temporary_name(path)
    try:
        image.save(temporary, format=file_format, quality=QUALITY, compress_level=_LOW_COMPRESSION)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(f"{path} cannot be written: {error.strerror or error}") from error
        raise
