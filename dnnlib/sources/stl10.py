"""STL-10 as its authors publish it: `stl10_binary.tar.gz`, or the folder that it unpacks to.

An image is 3 planes of 96 columns of 96 pixels, one byte each.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from dnnlib.images.codec import Layout
from dnnlib.sources.source_images import ArrayImage, ImageSource, SourceImage

SPLITS = {
    "train": ("train",),
    "test": ("test",),
    "unlabeled": ("unlabeled",),
    "train+unlabeled": ("train", "unlabeled"),
}  # name -> parts, in this order
DEFAULT_SPLIT = "train+unlabeled"
FILE_NAMES = ("train_X.bin", "test_X.bin", "unlabeled_X.bin")

_SIDE_PX = 96
_IMAGE_BYTES = 3 * _SIDE_PX * _SIDE_PX
_CLASS_NAMES = "class_names.txt"
_MAX_NAMES_BYTES = 2**16


class Files(Protocol):
    """What a folder and a tar have in common."""

    path: Path

    def exists(self, name: str) -> bool: ...
    def origin(self, name: str) -> str: ...
    def sizes(self, names: Sequence[str]) -> list[int]: ...
    def open(self, name: str) -> AbstractContextManager[IO[bytes]]: ...
    def read(self, name: str, max_bytes: int) -> bytes: ...
    def named_errors(self, name: str) -> AbstractContextManager[None]: ...


def is_stl10(files: Files) -> bool:
    """Tell whether there are files of STL-10 among these."""
    return any(files.exists(name) for name in FILE_NAMES)


def open_stl10(files: Files, split: str | None, max_images: int | None = None) -> ImageSource:
    """Return the images of a split; those of "train" and "test" have their labels.

    Args:
        files: In the tar, of which no more than an image is in memory at once, or in the folder that it unpacks to.
        split: One of SPLITS; None = "train+unlabeled", the 105,000 images that GANs are trained on.
        max_images: Take the first ones only; None = all.

    Raises:
        ValueError: A file is missing, or its size is not that of whole images.
    """
    if split is not None and split not in SPLITS:
        raise ValueError(f"--split={split} is unknown; STL-10 has {', '.join(SPLITS)}")
    parts = SPLITS[split or DEFAULT_SPLIT]
    counts = [_count(files, f"{part}_X.bin") for part in parts]
    labels = _labels(files, parts[0], counts[0]) if parts in (("train",), ("test",)) else None
    class_names = _class_names(files) if labels is not None else ()
    if labels and max(labels) >= len(class_names):
        raise ValueError(f"{files.path} has a label {max(labels) + 1}, but {len(class_names)} names in {_CLASS_NAMES}")
    count = min(sum(counts), max_images or sum(counts))

    def images() -> Iterator[SourceImage]:
        every = itertools.chain.from_iterable(map(_read, itertools.repeat(files), parts, counts))
        for index, (origin, array) in enumerate(itertools.islice(every, count)):
            yield ArrayImage(origin, array, labels[index] if labels else None)

    return ImageSource(count, images, labels is not None, class_names, Layout(_SIDE_PX, _SIDE_PX, 3))


def _count(files: Files, name: str) -> int:
    if not files.exists(name):
        raise ValueError(f"{files.path} has no {name}; unpack or download stl10_binary.tar.gz again, or give --split")
    (size,) = files.sizes([name])
    count, rest = divmod(size, _IMAGE_BYTES)
    if rest or count == 0:
        raise ValueError(
            f"{files.origin(name)} has {size:,} bytes, which are not whole images of {_IMAGE_BYTES:,}; "
            f"download stl10_binary.tar.gz again"
        )
    return count


def _read(files: Files, part: str, count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield what to call each image and its pixels, uint8 [height, width, channels]."""
    name = f"{part}_X.bin"
    with files.named_errors(name), files.open(name) as file:
        for index in range(count):
            data = file.read(_IMAGE_BYTES)
            if len(data) < _IMAGE_BYTES:
                raise ValueError(f"ends after {index:,} of its {count:,} images; download it again")
            columns = np.frombuffer(data, np.uint8).reshape(3, _SIDE_PX, _SIDE_PX)  # channel, x, y
            yield f"image {index} of {files.origin(name)}", np.ascontiguousarray(columns.transpose(2, 1, 0))


def _labels(files: Files, part: str, count: int) -> list[int]:
    """Return class indexes; the file counts from 1."""
    name = f"{part}_y.bin"
    if not files.exists(name):
        raise ValueError(f"{files.path} has no {name} with the labels; unpack or download stl10_binary.tar.gz again")
    with files.named_errors(name):
        data = files.read(name, count) if files.sizes([name]) == [count] else b""
        if len(data) != count or min(data) < 1:
            raise ValueError(f"does not hold one label from 1 on for each of {count:,} images; download it again")
    return [value - 1 for value in data]


def _class_names(files: Files) -> tuple[str, ...]:
    if not files.exists(_CLASS_NAMES):
        raise ValueError(f"{files.path} has no {_CLASS_NAMES}; unpack or download stl10_binary.tar.gz again")
    with files.named_errors(_CLASS_NAMES):
        return tuple(files.read(_CLASS_NAMES, _MAX_NAMES_BYTES).decode().split())
