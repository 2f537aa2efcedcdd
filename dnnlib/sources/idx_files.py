"""IDX files, the format of MNIST and its successors: `train-images-idx3-ubyte`, with or without .gz, and labels beside it."""

import gzip
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dnnlib.images.codec import Layout
from dnnlib.sources.source_images import ArrayImage, ImageSource, SourceImage

SPLITS = {"train": "train", "test": "t10k"}  # name -> how its files begin

_IMAGES = "images-idx3-ubyte"


def find_images(path: Path, split: str | None) -> Path | None:
    """Return the file of images that is or lies at a path, of a split (None = "train"); None if of another format."""
    if path.is_file():
        if _IMAGES not in path.name.replace(".", "-"):
            return None
        if split is not None:
            raise ValueError(f"--split={split} selects a file in a folder; leave it out, or give {path.parent}")
        return path
    if not any(_variant(path, f"{start}-{_IMAGES}") for start in SPLITS.values()):
        return None
    if split is not None and split not in SPLITS:
        raise ValueError(f"--split={split} is unknown; a folder of IDX files has {', '.join(SPLITS)}")
    name = f"{SPLITS[split or 'train']}-{_IMAGES}"
    found = _variant(path, name)
    if found is None:
        raise ValueError(f"{path} has no {name} or {name}.gz; download it, or give another --split")
    return found


def open_idx(path: Path, max_images: int | None) -> ImageSource:
    """Return the images of an IDX file, with the labels of the file beside it, if there is one; ValueError if damaged."""
    pixels = _read(path, 3)
    name = path.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    labels_path = _variant(path.parent, name)
    labels = _read(labels_path, 1) if labels_path else None
    if labels is not None and len(labels) != len(pixels):
        raise ValueError(f"{labels_path} has {len(labels):,} labels, but {path} {len(pixels):,} images")
    _, height, width = pixels.shape
    count = min(len(pixels), max_images or len(pixels))

    def images() -> Iterator[SourceImage]:
        for index in range(count):
            label = None if labels is None else int(labels[index])
            yield ArrayImage(f"image {index} of {path}", pixels[index, :, :, None], label)

    return ImageSource(count, images, labels is not None, layout=Layout(width, height, 1))


def _read(path: Path, dimensions: int) -> np.ndarray:
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        shape = struct.unpack_from(f">{dimensions}I", data, 4)
        if data[:4] != bytes([0, 0, 8, dimensions]) or 0 in shape:  # 8 = unsigned bytes
            raise ValueError(f"it begins with {data[:4].hex(' ')}, its shape is {shape}")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (ValueError, struct.error, EOFError, zlib.error, gzip.BadGzipFile) as error:
        kind = f"IDX file of bytes with {dimensions} dimensions"
        raise ValueError(f"{path} is damaged, or no {kind} ({error}); download it again") from error


def _variant(folder: Path, name: str) -> Path | None:
    """Return the file of this name, with or without .gz, and with "." in place of the "-" before idx if need be."""
    dotted = name.replace("-idx", ".idx")
    paths = (folder / variant for variant in (name, f"{name}.gz", dotted, f"{dotted}.gz"))
    return next(filter(Path.is_file, paths), None)
