"""What is measured: a real set of pictures and a source of generated ones, as the metrics see them."""

from collections.abc import Callable, Iterator
from typing import Protocol

from torch import Tensor

ImageBatch = tuple[Tensor, Tensor | None]  # uint8 [n, channels, height, width]; class indices int64 [n], if any

Progress = Callable[[str, int, int], None]  # what is being done, how much of it is done, how much there is


class RealImages(Protocol):
    """A fixed set of pictures."""

    @property
    def count(self) -> int:
        """How many pictures there are."""

    @property
    def content_hash(self) -> str:
        """Names the pictures by their content and order, wherever they are stored."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every picture."""

    @property
    def num_classes(self) -> int:
        """How many classes the pictures are sorted into; 0 = none."""

    def batches(self, batch_size: int) -> Iterator[ImageBatch]:
        """Yield all pictures, at most `batch_size` at a time, in a fixed order."""


class FakeImages(Protocol):
    """Pictures to be judged, usually a generator's."""

    @property
    def name(self) -> str:
        """What people call the source, such as the snapshot's file name."""

    @property
    def content_hash(self) -> str:
        """Names the source by its content, such as the snapshot's sha256; empty = unknown."""

    def batches(self, count: int, batch_size: int, seed: int) -> Iterator[ImageBatch]:
        """Yield `count` pictures, at most `batch_size` at a time, with the class each was asked to show.

        They follow from the seed alone, and a smaller count gives the first ones of a larger. Raises ValueError at
        once where there are fewer.
        """


def no_progress(what: str, done: int, total: int) -> None:
    """Show nothing."""
