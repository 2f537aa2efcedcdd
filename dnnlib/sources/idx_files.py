"""IDX files, the format of MNIST and of sets made like it: `train-images-idx3-ubyte`, with or without .gz, and labels."""

import contextlib
import gzip
import itertools
import math
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np

from dnnlib.images.codec import Layout
from dnnlib.sources.source_images import ArrayImage, ImageSource, SourceImage

SPLITS = {"train": "train", "test": "t10k"}  # name -> how its files begin

_IMAGES = "images-idx3-ubyte"
_BYTES = 8  # the code of unsigned bytes in the header
_MAX_SIDE_PX = 4096
_MAX_RATIO = 1032  # unpacked bytes a packed one, at most, of deflate


def find_images(source: str | Path, split: str | None = None) -> Path | None:
    """Return the file of images that a file or folder means; None if it is of another format.

    Args:
        source: That file, or the folder with it.
        split: In a folder: one of SPLITS; None = "train".
    """
    path = Path(source).expanduser()
    if path.is_file():
        if _IMAGES not in path.name.replace(".", "-"):
            return None
        if split is not None:
            raise ValueError(
                f"--split={split} chooses a file in a folder; leave it out, or give the folder of {path.name}"
            )
        return path
    if not any(_beside(path, f"{start}-{_IMAGES}") for start in SPLITS.values()):
        return None
    if split is not None and split not in SPLITS:
        raise ValueError(f"--split={split} is unknown; a folder of IDX files has {', '.join(SPLITS)}")
    name = f"{SPLITS[split or 'train']}-{_IMAGES}"
    found = _beside(path, name)
    if found is None:
        raise ValueError(f"{path} has no {name} or {name}.gz; download it, or give another --split")
    return found


def open_idx(path: Path, max_images: int | None = None) -> ImageSource:
    """Return the images of an IDX file, with the labels in the file of the same name that lies beside it, if any.

    Raises:
        ValueError: Another format, a size that does not fit what is declared, or another number of labels.
    """
    file = _IdxFile.of(path, 3)
    total, height, width = file.shape
    labels_path = _labels_path(path)
    labels = _IdxFile.of(labels_path, 1) if labels_path else None
    if labels and labels.shape != (total,):
        raise ValueError(f"{labels.path} has {labels.shape[0]:,} labels, but {path} {total:,} images")
    count = min(total, max_images or total)

    def images() -> Iterator[SourceImage]:
        values = labels.items() if labels else itertools.repeat(b"")
        for index, (data, value) in enumerate(zip(itertools.islice(file.items(), count), values, strict=False)):
            array = np.frombuffer(data, np.uint8).reshape(height, width, 1)
            yield ArrayImage(f"image {index} of {path}", array, value[0] if value else None)

    return ImageSource(count, images, labels is not None, layout=Layout(width, height, 1))


@dataclass(frozen=True)
class _IdxFile:
    """A file of `shape[0]` items of bytes."""

    path: Path
    shape: tuple[int, ...]

    @classmethod
    def of(cls, path: Path, dimensions: int) -> "_IdxFile":
        """Read the header of a file and compare it with the size of the file."""
        with _opened(path) as file:
            header = file.read(4 + 4 * dimensions)
        if header[:4] != bytes([0, 0, _BYTES, dimensions]) or len(header) < 4 + 4 * dimensions:
            raise ValueError(
                f"{path} is no IDX file of bytes with {dimensions} dimensions (it begins with {header[:4].hex(' ')}); "
                f"download it again"
            )
        shape = struct.unpack(f">{dimensions}I", header[4:])
        if not (shape[0] and all(1 <= side <= _MAX_SIDE_PX for side in shape[1:])):
            raise ValueError(f"{path} declares images of a size that cannot be: {shape}; download it again")
        declared, present = len(header) + math.prod(shape), os.path.getsize(path)
        fits = declared <= present * _MAX_RATIO if _is_packed(path) else declared == present
        if not fits:
            raise ValueError(f"{path} declares {declared:,} bytes, but has {present:,}; download it again")
        return cls(path, shape)

    def items(self) -> Iterator[bytes]:
        """Yield the bytes of each item."""
        size = math.prod(self.shape[1:])
        with _opened(self.path) as file:
            file.read(4 + 4 * len(self.shape))
            for index in range(self.shape[0]):
                data = file.read(size)
                if len(data) < size:
                    raise ValueError(
                        f"{self.path} ends after {index:,} of its {self.shape[0]:,} items; download it again"
                    )
                if index + 1 == self.shape[0] and file.read(1):
                    raise ValueError(
                        f"{self.path} has more than the {index + 1:,} items it declares; download it again"
                    )
                yield data


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with gzip.open(path) if _is_packed(path) else open(path, "rb") as file:
            yield cast(IO[bytes], file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged ({error}); download it again") from error


def _is_packed(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _labels_path(images: Path) -> Path | None:
    name = images.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    return _beside(images.parent, name)


def _beside(folder: Path, name: str) -> Path | None:
    """Return the file of this name, packed or not, and with "." in place of the "-" before idx if need be."""
    names = [name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz"]
    return next((folder / name for name in names if (folder / name).is_file()), None)
