"""Reads an image file as a projection target, with the network's size and channels."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dnnlib.images.codec import decode, to_pillow
from dnnlib.paths import user_path
from training.networks.generator import Generator

_BACKGROUND = (255, 255, 255)  # of transparent images


def read_target(path: str | Path, generator: Generator) -> tuple[Tensor, str]:
    """An image as uint8 [channels, height, width], and how it was changed to fit the network ("" = not at all).

    The centre crop of the network's aspect ratio is resized. Colour becomes grey, and grey RGB, as the network needs.
    Raises ValueError for a file that is not an image.
    """
    path = user_path(path)
    if not path.is_file():
        raise ValueError(f"--target={path}: there is no such file; give an image (PNG, JPEG, WebP, ...)")
    try:
        pixels, is_transparent = opaque(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"--target={path}: {error}") from error
    image = to_pillow(pixels)
    changes = ["transparency on white"] if is_transparent else []
    size = (generator.img_width, generator.img_height)
    if image.size != size:
        is_cropped = image.width * size[1] != image.height * size[0]
        how = "cropped and resized" if is_cropped else "resized"
        changes.append(f"{how} from {image.width}x{image.height} to {size[0]}x{size[1]} px")
        image = centre(image, size).resize(size, Image.Resampling.LANCZOS)
    if pixels.shape[2] != generator.img_channels:
        image = image.convert("L" if generator.img_channels == 1 else "RGB")
        changes.append("turned grey" if generator.img_channels == 1 else "grey as RGB")
    result = np.asarray(image).reshape(size[1], size[0], generator.img_channels)
    return torch.from_numpy(result.transpose(2, 0, 1).copy()), ", ".join(changes)


def opaque(data: bytes) -> tuple[np.ndarray, bool]:
    """The pixels of an image file, on white if transparent, and whether it is. Raises ValueError."""
    try:
        return decode(data), False
    except ValueError:  # transparent, among other things
        return decode(data, background=_BACKGROUND), True


def centre(image: Image.Image, aspect: tuple[int, int]) -> Image.Image:
    """The largest centre crop of this aspect ratio, (width, height)."""
    scale = min(image.width / aspect[0], image.height / aspect[1])
    width, height = (max(round(side * scale), 1) for side in aspect)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
