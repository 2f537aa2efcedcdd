"""Where the pictures of a new data set come from: folders, zip files, CIFAR-10's archive, the built-in demo set."""

import os
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from dnnlib import demo_digits
from dnnlib.cifar_archive import read_cifar10
from dnnlib.label_table import FILE_NAME, Label, labels_from_folders, read_label_table
from dnnlib.picture import Color, Layout
from dnnlib.picture_tree import PictureTree

DEMO = "demo"


class SourcePicture(Protocol):
    """A picture of a source: cheap to hold and to send to another process."""

    @property
    def label(self) -> Label | None: ...

    @property
    def origin(self) -> str:
        """What to call it in a message."""

    def layout(self, background: Color | None) -> Layout:
        """Return its size and kind, without reading pixels; ValueError if transparent and there is no background."""

    def pixels(self, channels: int, background: Color | None) -> np.ndarray:
        """Return uint8 [height, width, channels], in its own size."""


@dataclass(frozen=True)
class FilePicture:
    """A picture file in a folder or zip, read when asked for."""

    tree: PictureTree
    name: str
    label: Label | None = None

    @property
    def origin(self) -> str:
        return self.tree.origin(self.name)

    def layout(self, background: Color | None) -> Layout:
        return self.tree.layout(self.name, background)

    def pixels(self, channels: int, background: Color | None) -> np.ndarray:
        return self.tree.decode(self.name, channels, background)


@dataclass(frozen=True)
class ArrayPicture:
    """A picture that exists as pixels, uint8 [height, width, 3]."""

    origin: str
    array: np.ndarray
    label: Label | None = None

    def layout(self, background: Color | None = None) -> Layout:
        height, width, channels = self.array.shape
        return Layout(width, height, channels)

    def pixels(self, channels: int, background: Color | None = None) -> np.ndarray:
        assert self.array.shape[2] == channels
        return self.array


@dataclass(frozen=True)
class ImageSource:
    """The pictures to pack."""

    count: int
    pictures: Callable[[], Iterable[SourcePicture]]  # each call starts at the first
    labelled: bool
    class_names: tuple[str, ...] = ()  # () = none
    layout: Layout | None = None  # of all pictures; None = to be found by looking at them
    num_others: int = 0  # files that are no pictures by their names
    check: Callable[[], None] = lambda: None  # raises ChangedError if the source is gone or another one


def open_source(
    source: str, max_images: int | None = None, folder_labels: bool = False, split: str | None = None
) -> ImageSource:
    """Return the pictures that a command line's `--source` means.

    Args:
        source: A folder, a zip, cifar-10-python.tar.gz, or "demo".
        max_images: Take at most so many: spread evenly over a folder or zip, else the first; None = all.
        folder_labels: Make the sub-folders of a folder or zip its classes.
        split: Of the demo set, see `demo_digits.SPLITS`; None = "train".
    """
    if folder_labels and (source == DEMO or _is_tar(source)):
        raise ValueError(f"--labels-from-folders is for folders and zip files; {source} brings its own labels")
    if source == DEMO:
        return _demo(split or "train", max_images)
    if split is not None:
        raise ValueError(f"--split={split} is for --source=demo only")
    if _is_tar(source):
        return _cifar10(Path(source).expanduser(), max_images)
    return _files(source, max_images, folder_labels)


def _demo(split: str, max_images: int | None) -> ImageSource:
    size = demo_digits.split_size(split)
    count = size if max_images is None else min(max_images, size)

    def pictures() -> Iterator[SourcePicture]:
        for index, (array, label) in enumerate(demo_digits.digits(split, count)):
            yield ArrayPicture(f"demo picture {index}", array, label)

    names = tuple(str(digit) for digit in range(10))
    return ImageSource(count, pictures, True, names, Layout(demo_digits.SIZE_PX, demo_digits.SIZE_PX, 3))


def _cifar10(path: Path, max_images: int | None) -> ImageSource:
    arrays, labels, class_names = read_cifar10(path)
    all_pictures = [
        ArrayPicture(f"picture {index} of {path}", array, label)
        for index, (array, label) in enumerate(zip(arrays, labels, strict=True))
    ]
    chosen = all_pictures[:max_images]
    return ImageSource(len(chosen), lambda: chosen, True, tuple(class_names), chosen[0].layout())


def _files(source: str, max_images: int | None, folder_labels: bool) -> ImageSource:
    tree = PictureTree(source)
    names = tree.picture_names()
    table = read_label_table(tree)
    if folder_labels:
        if table is not None:
            raise ValueError(f"{source} has labels in its {FILE_NAME}, which are kept; leave out --labels-from-folders")
        table = labels_from_folders(names, source)
    labels = table.labels_of(names) if table else [None] * len(names)
    pictures = [FilePicture(tree, name, label) for name, label in zip(names, labels, strict=True)]
    chosen = _spread(pictures, max_images)
    num_others = len(set(tree.names()) - set(names) - {FILE_NAME})
    class_names = table.class_names if table else ()
    return ImageSource(
        len(chosen), lambda: chosen, table is not None, class_names, num_others=num_others, check=tree.check
    )


def _spread(pictures: list[FilePicture], max_images: int | None) -> list[FilePicture]:
    """Return so many pictures at even steps: the first ones would often be all of one class or one film."""
    if max_images is None or max_images >= len(pictures):
        return pictures
    return [pictures[index * len(pictures) // max_images] for index in range(max_images)]


def _is_tar(source: str) -> bool:
    path = Path(source).expanduser()
    is_readable = path.is_file() and os.access(path, os.R_OK)
    return is_readable and not zipfile.is_zipfile(path) and tarfile.is_tarfile(path)
