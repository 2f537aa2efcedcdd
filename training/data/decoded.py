"""Pictures that were decoded once and are kept: in memory, in a file that processes share, or on the GPU."""

from enum import Enum, auto
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.data.decoded_file import map_pictures

Shape = tuple[int, int, int, int]  # files, channels, height, width


class Place(Enum):
    """Where decoded pictures are kept."""

    MEMORY = auto()  # of this process; they come in as they are read
    FILE = auto()  # mapped into memory, once for all processes
    DEVICE = auto()  # of the training


class Decoded:
    """Pictures by the number of their file; one that is not there must be read from its file.

    A copy for another process starts empty, unless the pictures are in a file.
    """

    def __init__(
        self,
        pixels: Tensor,  # uint8 [files, channels, height, width]
        is_there: np.ndarray,  # bool [files]
        place: Place,
        path: Path | None = None,  # of the file
    ) -> None:
        self.pixels, self.is_there, self.place, self.path = pixels, is_there, place, path

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path, tuple(self.pixels.shape))

    def image(self, file_index: int) -> np.ndarray | None:
        """Return a picture, uint8 [channels, height, width], not to be changed; None if it is not there."""
        return self.pixels[file_index].cpu().numpy() if self.is_there[file_index] else None

    def keep(self, file_index: int, image: np.ndarray) -> None:
        """Take in a picture that was decoded, uint8 [channels, height, width]."""
        if self.place is Place.MEMORY:
            self.pixels[file_index] = torch.from_numpy(image)
            self.is_there[file_index] = True

    def take(self, files: np.ndarray, is_flipped: np.ndarray) -> Tensor | None:
        """Return copies of pictures where they are kept, some flipped left to right; None unless all are there.

        Args:
            files: Numbers of their files, int64 [count].
            is_flipped: Which ones to flip, bool [count].

        Returns:
            uint8 [count, channels, height, width].
        """
        if not self.is_there[files].all():
            return None
        images = self.pixels.index_select(0, send(torch.from_numpy(files), self.pixels.device))
        if not is_flipped.any():
            return images
        mask = send(torch.from_numpy(is_flipped), self.pixels.device)
        return torch.where(mask[:, None, None, None], images.flip(3), images)


def empty(shape: Shape) -> Decoded:
    """Return a place in memory for so many pictures; it takes up space as they come in."""
    return Decoded(torch.from_numpy(np.zeros(shape, np.uint8)), np.zeros(shape[0], bool), Place.MEMORY)


def from_file(path: Path, shape: Shape, verify: bool = True) -> Decoded | None:
    """Return the pictures of a file that `write_pictures` wrote; None if it is not there or damaged."""
    found = map_pictures(path, shape, verify)
    return found and Decoded(torch.from_numpy(found[0]), found[1], Place.FILE, path)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on a device, without waiting for that device."""
    if device.type == "cuda" and tensor.device.type == "cpu" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _reopened(path: Path | None, shape: Shape) -> Decoded:
    return (path and from_file(path, shape, verify=False)) or empty(shape)
