"""An image file as a network's target: of its size and colours, and told what was done to it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dnnlib.images.codec import decode
from training.networks.generator import Generator

_BEHIND = (255, 255, 255)  # transparent images


def read_targets(paths: Sequence[str], generator: Generator) -> list[Tensor]:
    """Images as `read_target` gives them; prints what was done to them."""
    targets = []
    for path in paths:
        target, done = read_target(path, generator)
        if done:
            print(f"{path}: {done}")
        targets.append(target)
    return targets


def read_target(path: str | Path, generator: Generator) -> tuple[Tensor, str]:
    """Return an image as a generator would make it, uint8 [channels, height, width], and what was done to it, or "".

    The largest part in the middle of the network's proportions is resized. Colours become grey, and grey RGB, as the
    network has it. Raises ValueError for what is not an image.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"--target={path}: there is no such file; give an image (PNG, JPEG, WebP, ...)")
    try:
        pixels, is_transparent = opaque(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"--target={path}: {error}") from error
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    done = ["transparency on white"] if is_transparent else []
    size = (generator.img_width, generator.img_height)
    if image.size != size:
        is_cropped = image.width * size[1] != image.height * size[0]
        how = "cropped and resized" if is_cropped else "resized"
        done.append(f"{how} from {image.width}x{image.height} to {size[0]}x{size[1]} px")
        image = middle(image, size).resize(size, Image.Resampling.LANCZOS)
    if pixels.shape[2] != generator.img_channels:
        image = image.convert("L" if generator.img_channels == 1 else "RGB")
        done.append("turned grey" if generator.img_channels == 1 else "grey as RGB")
    result = np.asarray(image).reshape(size[1], size[0], generator.img_channels)
    return torch.from_numpy(result.transpose(2, 0, 1).copy()), ", ".join(done)


def opaque(data: bytes) -> tuple[np.ndarray, bool]:
    """The pixels of an image file, on white where they are transparent, and whether they are. Raises ValueError."""
    try:
        return decode(data), False
    except ValueError:  # transparent, among other things
        return decode(data, background=_BEHIND), True


def middle(image: Image.Image, proportions: tuple[int, int]) -> Image.Image:
    """The largest part in the middle of an image that has these proportions, width and height."""
    scale = min(image.width / proportions[0], image.height / proportions[1])
    width, height = (max(round(side * scale), 1) for side in proportions)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
