"""Images that were decoded once and are kept: in memory, in a file that processes share, or on the GPU."""

import math
from collections.abc import Iterable
from enum import Enum, auto
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap, write_array_header_1_0
from torch import Tensor

from dnnlib.files import atomic_write

Shape = tuple[int, int, int, int]  # files, channels, height, width


class CacheLocation(Enum):
    """Where decoded images are kept."""

    MEMORY = auto()  # of this process; they come in as they are read
    FILE = auto()  # mapped into memory, once for all processes
    DEVICE = auto()  # of the training


class Decoded:
    """Images by the number of their file; one that is not there must be read from its file.

    A copy for another process starts empty, unless the images are in a file.
    """

    def __init__(
        self,
        pixels: Tensor,  # uint8 [files, channels, height, width]
        is_valid: np.ndarray,  # bool [files]
        place: CacheLocation,
        path: Path | None = None,  # of the file
    ) -> None:
        self.pixels, self.is_valid, self.place, self.path = pixels, is_valid, place, path

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path, tuple(self.pixels.shape))

    def image(self, file_index: int) -> np.ndarray | None:
        """Return an image, uint8 [channels, height, width], not to be changed; None if it is not there."""
        return self.pixels[file_index].cpu().numpy() if self.is_valid[file_index] else None

    def keep(self, file_index: int, image: np.ndarray) -> None:
        """Take in an image that was decoded, uint8 [channels, height, width]."""
        if self.place is CacheLocation.MEMORY:
            self.pixels[file_index] = torch.from_numpy(image)
            self.is_valid[file_index] = True

    def get_batch(self, files: np.ndarray, is_flipped: np.ndarray) -> Tensor | None:
        """Return copies of images where they are kept, some flipped left to right; None unless all are there.

        Args:
            files: Numbers of their files, int64 [count].
            is_flipped: Which ones to flip, bool [count].

        Returns:
            uint8 [count, channels, height, width].
        """
        if not self.is_valid[files].all():
            return None
        images = self.pixels.index_select(0, send(torch.from_numpy(files), self.pixels.device))
        if not is_flipped.any():
            return images
        mask = send(torch.from_numpy(is_flipped), self.pixels.device)
        return torch.where(mask[:, None, None, None], images.flip(3), images)


def empty(shape: Shape) -> Decoded:
    """Return a place in memory for so many images; it takes up space as they come in."""
    return Decoded(torch.from_numpy(np.zeros(shape, np.uint8)), np.zeros(shape[0], bool), CacheLocation.MEMORY)


def write_file(path: Path, shape: Shape, parts: Iterable[tuple[Tensor, np.ndarray]]) -> None:
    """Write images that come in parts, in order, as one .npy of bytes; it takes its name when it is whole.

    All pixels come first, then a byte per file: whether its image is there. Written and not mapped, because a full disk
    kills a process that writes to mapped memory.

    Args:
        path: Of the file; its folder must exist.
        shape: Of all images.
        parts: Images, uint8 [some, channels, height, width], and which of them are there, bool [some].
    """
    with atomic_write(path) as file:
        write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (_length(shape),)})
        masks = []
        for pixels, is_valid in parts:
            file.write(pixels.numpy().data)
            masks.append(is_valid)
        file.write(np.concatenate(masks).data)


def from_file(path: Path, shape: Shape) -> Decoded | None:
    """Return the images of a file that `write_file` wrote; None if it is not there, or of another shape or size.

    Processes share its memory; what one of them writes there stays its own.
    """
    try:
        content = open_memmap(path, mode="c")
        num_bytes = path.stat().st_size
    except (OSError, ValueError, SyntaxError, TokenError):  # the last two: numpy's, of a damaged header
        return None
    is_whole = content.dtype == np.uint8 and content.shape == (_length(shape),)
    if not is_whole or num_bytes != content.offset + content.nbytes:
        return None
    pixels, is_valid = np.split(content, [math.prod(shape)])
    return Decoded(torch.from_numpy(pixels.reshape(shape)), is_valid.astype(bool), CacheLocation.FILE, path)


def _length(shape: Shape) -> int:
    return math.prod(shape) + shape[0]


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on a device, without waiting for that device."""
    if device.type == "cuda" and tensor.device.type == "cpu" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _reopened(path: Path | None, shape: Shape) -> Decoded:
    return (path and from_file(path, shape)) or empty(shape)
