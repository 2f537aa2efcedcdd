"""The interfaces of what is measured: a real set of images, and a source of generated ones."""

import enum
from collections.abc import Callable, Iterator
from typing import Protocol

from torch import Tensor

ImageBatch = tuple[Tensor, Tensor | None]  # uint8 [n, channels, height, width]; class indices int64 [n], if any

EPSILON = 1e-4  # of a path's length, between the two images of a pair

Progress = Callable[[str, int, int], None]  # called with a description, the number done, and the total


class Sample(enum.Enum):
    """What a metric takes of a generator."""

    IMAGES = "images"  # uint8 [n, channels, height, width]
    PAIRS = "pairs"  # neighbours along paths in W, float32 [n, 2, channels, height, width], 0..255, not rounded


class RealImages(Protocol):
    """A fixed set of images."""

    name: str  # for people, such as the file name
    location: str  # absolute path
    count: int
    image_shape: tuple[int, int, int]  # (channels, height, width) of every image
    num_classes: int  # 0 = the images have none

    @property
    def content_hash(self) -> str:
        """A hash of the images and their order, wherever they are stored."""

    def batches(self, chosen: range, batch_size: int) -> Iterator[ImageBatch]:
        """Yield the images of these indices in order, `batch_size` at a time."""


class FakeImages(Protocol):
    """Generated images."""

    name: str  # for people, such as the file name of the snapshot

    @property
    def count(self) -> int | None:
        """Number of images; None = any."""

    @property
    def content_hash(self) -> str:
        """Such as the sha256 of the snapshot; empty = unknown."""

    def check(self, sample: Sample, count: int) -> None:
        """Raise ValueError at once if there are not so many images, or no pairs at all."""

    def batches(self, chosen: range, batch_size: int, seed: int) -> Iterator[ImageBatch]:
        """Yield the images of these indices, `batch_size` at a time, with the class each was asked to show.

        Image i follows from the seed and i alone.
        """

    def pairs(self, chosen: range, batch_size: int, seed: int) -> Iterator[ImageBatch]:
        """Yield pairs: both images show the start of a straight path between random points of W, at 0 and EPSILON of it."""


def no_progress(what: str, done: int, total: int) -> None:
    """Show nothing."""
