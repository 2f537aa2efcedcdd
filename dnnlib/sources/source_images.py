"""A source of images, each cheap to hold and to send to another process."""

import contextlib
import io
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from dnnlib.archive.image_tree import ImageTree
from dnnlib.archive.label_table import Label
from dnnlib.images import codec as image
from dnnlib.images.codec import Color, FileKind, Layout

Result = TypeVar("Result")


@contextlib.contextmanager
def named(origin: str) -> Iterator[None]:
    """Put the name of an image before the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{origin} {error}") from error


class SourceImage(Protocol):
    @property
    def label(self) -> Label | None: ...

    @property
    def origin(self) -> str: ...  # its name in messages

    def kind(self) -> FileKind: ...

    def layout(self, background: Color | None) -> Layout:
        """Return its layout; ValueError if it is transparent and there is no background."""

    def pixels(self, channels: int, background: Color | None) -> np.ndarray:
        """Return uint8 [height, width, channels], in its own size."""


@dataclass(frozen=True)
class ArrayImage:
    """An image in memory, uint8 [height, width, 1 or 3]."""

    origin: str
    array: np.ndarray
    label: Label | None = None

    def kind(self) -> FileKind:
        return FileKind("pixels", "grey" if self.array.shape[2] == 1 else "colour")

    def layout(self, background: Color | None = None) -> Layout:
        height, width, channels = self.array.shape
        return Layout(width, height, channels)

    def pixels(self, channels: int, background: Color | None = None) -> np.ndarray:
        assert self.array.shape[2] == channels
        return self.array


class EncodedImage(SourceImage):
    """Base of images whose content is an image file."""

    @abstractmethod
    def content(self) -> bytes:
        """Return the bytes of an image file; ValueError if they cannot be read."""

    def kind(self) -> FileKind:
        return self._named(lambda data: image.read_kind(io.BytesIO(data)))

    def layout(self, background: Color | None) -> Layout:
        return self._named(lambda data: image.read_layout(io.BytesIO(data), background))

    def pixels(self, channels: int, background: Color | None) -> np.ndarray:
        return self._named(lambda data: image.decode(data, channels, background))

    def _named(self, read: Callable[[bytes], Result]) -> Result:
        data = self.content()
        with named(self.origin):
            return read(data)


@dataclass(frozen=True)
class FileImage(EncodedImage):
    """An image file in a folder or zip, read when asked for."""

    tree: ImageTree
    name: str
    label: Label | None = None

    @property
    def origin(self) -> str:
        return self.tree.origin(self.name)

    def content(self) -> bytes:
        with self.tree.named_errors(self.name):
            return self.tree.read(self.name)

    def layout(self, background: Color | None) -> Layout:
        return self.tree.layout(self.name, background)


@dataclass(frozen=True)
class ImageSource:
    count: int
    images: Callable[[], Iterable[SourceImage]]  # each call starts at the first
    labelled: bool
    class_names: tuple[str, ...] = ()  # () = none
    layout: Layout | None = None  # of all images; None = unknown
    suffixes: str = ""  # of the files, by number, if there are several
    left_out: str = ""  # files that are not read as images, by kind
    no_classes: str = ""  # folders among those of classes that hold no images
    name_note: str = ""  # about names of files whose encoding is not known
    check: Callable[[], None] = lambda: None  # raises ChangedError if the source is gone or was replaced
    packing_reason: str = "it is neither a folder nor a zip of images"  # why train.py cannot take it; "" = it can
