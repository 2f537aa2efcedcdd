"""Stand-ins for what is measured: a tensor of images as the real set, and as a source of generated ones."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from dnnlib.sources.demo_digits import digits
from metrics.images import Sample


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
