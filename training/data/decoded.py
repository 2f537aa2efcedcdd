"""Images that were decoded once: in memory, in a memory-mapped file that processes share, or on the GPU."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import write_array_header_1_0
from torch import Tensor

from dnnlib.files import atomic_write
from torch_utils.transfer import to_device_async

Shape = tuple[int, int, int, int]  # files, channels, height, width


class DecodedImages:
    """All images of a data set, uint8 [files, channels, height, width]. Pickled, it carries at most the path of its file."""

    def __init__(self, pixels: Tensor, path: Path | None = None) -> None:
        self.pixels, self.path = pixels, path

    def __reduce__(self) -> tuple[Any, ...]:
        return read_file, (self.path, tuple(self.pixels.shape))

    def get_batch(self, files: np.ndarray, is_flipped: np.ndarray) -> Tensor:
        """Return copies of images, uint8 [count, channels, height, width], on the device of the cache.

        `files` are their indices, int64 [count]; `is_flipped`, bool [count], says which to flip left to right.
        """
        device = self.pixels.device
        images = self.pixels.index_select(0, to_device_async(torch.from_numpy(files), device))
        if not is_flipped.any():
            return images
        mask = to_device_async(torch.from_numpy(is_flipped), device)
        return torch.where(mask[:, None, None, None], images.flip(3), images)


def write_file(path: Path, shape: Shape, parts: Iterable[Tensor]) -> None:
    """Write images, uint8, in parts of some each, as one .npy of this shape.

    It is written and not mapped, because a full disk kills a process that writes to mapped memory.
    """
    with atomic_write(path) as file:
        write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for pixels in parts:
            file.write(pixels.numpy().data)


def read_file(path: Path | None, shape: Shape) -> DecodedImages | None:
    """Return the images of a file that `write_file` wrote; None where it is missing, damaged or of another shape.

    Processes share its memory; what one of them writes there stays its own.
    """
    try:
        content = np.load(path, mmap_mode="c") if path else None
    except Exception:  # NumPy raises nearly anything where a header is damaged
        return None
    if content is None or content.dtype != np.uint8 or content.shape != shape:
        return None
    return DecodedImages(torch.from_numpy(content), path)
