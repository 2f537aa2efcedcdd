"""Data sets of noise, and tensors of images as the real and generated images of a metric."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dnnlib.archive.writer import write_dataset
from dnnlib.images.codec import Layout, encode_png
from dnnlib.sources.demo import digits
from dnnlib.sources.image_sources import SourceOptions, open_source
from dnnlib.sources.source_images import ImageSource
from metrics.images import Sample


def noise(seed: int, height: int = 8, width: int = 16, channels: int = 3) -> np.ndarray:
    """An image, uint8 [height, width, channels]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def write_images(
    dest: Path, images: Iterable[np.ndarray], num_classes: int = 3, layout: Layout | None = None, force: bool = False
) -> Path:
    """Write a data set whose image i has class i modulo the number of classes."""
    with write_dataset(dest, [str(index) for index in range(num_classes)], force, layout=layout) as writer:
        for index, image in enumerate(images):
            writer.add(encode_png(image), index % num_classes)
    return dest


def write_pixels(dest: Path, images: np.ndarray | Tensor) -> Path:
    """Write an unlabelled data set of images, uint8 [n, height, width, channels]."""
    with write_dataset(dest) as writer:
        for pixels in np.ascontiguousarray(images):
            writer.add(encode_png(pixels), None)
    return dest


def open_set(source: Path, split: str | None = None, max_images: int | None = None) -> ImageSource:
    """The images of `dataset_tool.py --source`."""
    return open_source(str(source), SourceOptions(split=split, max_images=max_images))


class FixedImages:
    """Serves as RealImages and, its images in order whatever the seed, as FakeImages; counts the passes."""

    def __init__(self, images: Tensor, classes: Tensor | None = None, content_hash: str = "images") -> None:
        self.images, self.classes = images, classes
        self.count = len(images)
        self.content_hash = content_hash
        self.name = content_hash
        self.location = f"/data/{content_hash}"
        self.image_shape = (images.shape[1], images.shape[2], images.shape[3])
        self.num_classes = 0 if classes is None else int(classes.max()) + 1
        self.passes = 0

    def parts(self, chosen: range, batch_size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        self.passes += 1
        for start in range(chosen.start, chosen.stop, batch_size):
            part = slice(start, min(start + batch_size, chosen.stop))
            yield self.images[part], None if self.classes is None else self.classes[part]

    def batches(self, chosen: range, batch_size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        return self.parts(chosen, batch_size)


class GeneratedImages(FixedImages):
    """The same with the signatures of FakeImages."""

    def check(self, sample: Sample, count: int) -> None:
        assert count <= self.count

    def batches(  # type: ignore[override]
        self, chosen: range, batch_size: int, seed: int
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        return self.parts(chosen, batch_size)

    def pairs(self, chosen: range, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        for images, _ in self.parts(chosen, batch_size):
            yield torch.stack([images, 255 - images], dim=1).float(), None


def demo_images(split: str, count: int) -> tuple[Tensor, Tensor]:
    """The first demo digits, uint8 [count, 3, 32, 32], and their labels."""
    images, labels = zip(*digits(split, count), strict=True)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)
