"""What a projection leaves: target and result side by side, the way there, the styles of all."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from dnnlib.files import atomic_write
from training.sampling.sheets import as_colour, enlarged, enlargement, sheet

_FRAME_MS, _LAST_FRAME_MS = 50, 1500


def comparison(target: Tensor, picture: Tensor, note: str) -> np.ndarray:
    """Target and projection, uint8 [channels, height, width], side by side; uint8 [height, width, 3]."""
    left, right = (image.permute(1, 2, 0).numpy() for image in (target, picture))
    return sheet([[(left, "target"), (right, note)]])


def save_animation(path: Path, target: Tensor, frames: Sequence[Tensor]) -> None:
    """Write the way to a target as an animated WebP: the target on the left, uint8 [channels, height, width] all."""
    factor = enlargement(*target.shape[1:])
    pairs = (np.concatenate([one.permute(1, 2, 0).numpy() for one in (target, frame)], axis=1) for frame in frames)
    pages = [Image.fromarray(as_colour(enlarged(pair, factor))) for pair in pairs]
    durations = [_FRAME_MS] * (len(pages) - 1) + [_LAST_FRAME_MS]
    with atomic_write(path) as file:
        pages[0].save(
            file, format="WEBP", save_all=True, append_images=pages[1:], duration=durations, loop=0, lossless=True
        )
