"""What metrics are computed of: images of a data set, of a generator, or of one data set against another."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from dnnlib.parallel import available_cpus
from metrics.images import EPSILON, ImageBatch, Sample
from metrics.registry import uses_flipped
from torch_utils import distributed
from torch_utils.rng import derive_seed
from training.data.files import ImageFiles
from training.data.stream import ImageDataset
from training.networks.generator import Generator
from training.run.preview import to_uint8

_LATENT_STREAM, _NOISE_STREAM, _OTHER_STREAM = 10, 11, 12  # tell the draws of a seed apart
_CHUNK = 50  # images of up to 64 px generated at once
_CHUNK_PIXELS = _CHUNK * 64 * 64
_MAX_WORKERS = 8  # processes that read images ahead


class RealSet:
    """All images of a data set as `metrics.images.RealImages`."""

    def __init__(self, dataset: ImageDataset, workers: int = 0) -> None:
        self.dataset = dataset
        self.workers = workers  # processes that read images ahead; 0 = read them in this one
        self.name = dataset.path.name
        self.location = str(dataset.path.resolve())
        self.count = len(dataset)
        spec = dataset.spec
        self.image_shape = (spec.channels, spec.height, spec.width)
        self._classes = class_indices(dataset.labels())
        self.num_classes = 0 if self._classes is None else spec.label_dim

    @cached_property
    def content_hash(self) -> str:
        """A SHA-256 over the images; of a folder every file is read for it, once."""
        return self.dataset.content_hash()

    def batches(self, chosen: range, batch_size: int) -> Iterator[ImageBatch]:
        """Yield the images of these indices in the order of the data set."""
        loader = DataLoader(
            Subset(self.dataset, chosen), batch_size, num_workers=self.workers, pin_memory=torch.cuda.is_available()
        )
        for first, (images, _) in zip(range(0, len(chosen), batch_size), loader, strict=True):
            yield images, None if self._classes is None else self._classes[list(chosen[first : first + batch_size])]


class FakeSet:
    """The images of a folder or zip as `metrics.images.FakeImages`: those of any generator, saved as files."""

    def __init__(self, real: RealSet) -> None:
        self.images = real
        self.name = real.name

    @property
    def content_hash(self) -> str:
        """That of the images."""
        return self.images.content_hash

    def check(self, sample: Sample, count: int) -> None:
        """Raise ValueError where there are fewer images, and for pairs, which only a generator makes."""
        path = self.images.dataset.path
        if sample is Sample.PAIRS:
            raise ValueError(f"path length moves through the latents of a generator: it takes --network, not {path}")
        if count > self.images.count:
            raise ValueError(
                f"{path} has {self.images.count} images, but the metrics take {count} generated ones; name metrics "
                f"of a smaller number, such as fid{self.images.count}_full"
            )

    def batches(self, chosen: range, batch_size: int, seed: int) -> Iterator[ImageBatch]:
        """Yield the images of these indices, whatever the seed."""
        return self.images.batches(chosen, batch_size)

    def pairs(self, chosen: range, batch_size: int, seed: int) -> Iterator[ImageBatch]:
        """Raise ValueError: there are none."""
        raise ValueError(f"{self.name} has no pairs of images")


class FakeSampler:
    """A generator as `metrics.images.FakeImages`: psi 1, random noise, labels drawn from those of the data set.

    Image i follows from (seed, i): its latent and label by its own generator, its noise because images are made in
    chunks of a fixed size, each with a seed of its own, whatever the batch size.
    """

    def __init__(
        self,
        G: Generator,  # in eval mode
        dataset: ImageDataset,  # what the images will be compared with, and whose labels they get
        device: torch.device | str,  # where G is
        name: str = "",  # such as the snapshot's file name
        content_hash: str = "",  # such as the snapshot's sha256
    ) -> None:
        if G.training:
            raise ValueError("the generator is in training mode, in which sampling changes it; call eval() before")
        _check_match(G, dataset)
        self.G, self.device = G, torch.device(device)
        self.name, self.content_hash = name, content_hash
        self._labels = dataset.labels() if G.c_dim else np.zeros((1, 0), np.float32)
        self._classes = class_indices(self._labels)
        # Larger images in smaller chunks, by their size alone: what fits a small GPU must not change the value.
        self._chunk = min(max(_CHUNK_PIXELS // G.img_resolution**2, 4), _CHUNK)

    def check(self, sample: Sample, count: int) -> None:
        """Accept everything: there is no end of images and pairs."""

    def batches(self, chosen: range, batch_size: int, seed: int) -> Iterator[ImageBatch]:
        """Yield the images of these indices."""
        return self._rebatch(chosen, batch_size, lambda start: self._images(start, seed))

    def pairs(self, chosen: range, batch_size: int, seed: int) -> Iterator[ImageBatch]:
        """Yield the pairs of these indices; the two images of a pair have the same noise."""
        return self._rebatch(chosen, batch_size, lambda start: self._pairs(start, seed))

    def _rebatch(self, chosen: range, batch_size: int, chunk: Callable[[int], ImageBatch]) -> Iterator[ImageBatch]:
        """Yield what `chunk(start)` returns for the chunk that begins at `start`, cut into the batches asked for."""
        made_start = -1
        for first in range(chosen.start, chosen.stop, batch_size):
            stop, parts = min(first + batch_size, chosen.stop), []
            for start in range(first // self._chunk * self._chunk, stop, self._chunk):
                if start != made_start:
                    (images, classes), made_start = chunk(start), start
                part = slice(max(first - start, 0), stop - start)
                parts.append((images[part], None if classes is None else classes[part]))
            some_images, some_classes = zip(*parts, strict=True)
            yield torch.cat(some_images), None if some_classes[0] is None else torch.cat(some_classes)

    @torch.no_grad()
    def _images(self, start: int, seed: int) -> ImageBatch:
        """Return the whole chunk that begins at image `start`."""
        z, chosen = self._draw(_LATENT_STREAM, seed, start)
        with self._noise_of(seed, start):
            images = self.G(z, self._labels_of(chosen), truncation_psi=1.0, noise_mode="random")
        return to_uint8(images), None if self._classes is None else self._classes[chosen]

    @torch.no_grad()
    def _pairs(self, start: int, seed: int) -> ImageBatch:
        """Return the whole chunk that begins at pair `start`."""
        (z, chosen), (other_z, _) = (self._draw(stream, seed, start) for stream in (_LATENT_STREAM, _OTHER_STREAM))
        c, images = self._labels_of(chosen), []
        ws, other_ws = self.G.mapping(z, c), self.G.mapping(other_z, c)
        for point in (ws, ws.lerp(other_ws, EPSILON)):
            with self._noise_of(seed, start):
                images.append(self.G.synthesis(point, noise_mode="random"))
        return (torch.stack(images, dim=1) + 1) * 127.5, None

    @contextlib.contextmanager
    def _noise_of(self, seed: int, start: int) -> Iterator[None]:
        """Make the generator draw the noise of the chunk that begins at `start`."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive_seed(seed, _NOISE_STREAM, start))
            yield

    def _draw(self, stream: int, seed: int, start: int) -> tuple[Tensor, list[int]]:
        """Return the latents of a chunk, [chunk, z_dim], and whose label each gets."""
        latents, chosen = [], []
        for index in range(start, start + self._chunk):
            rng = np.random.default_rng(derive_seed(seed, stream, index))
            latents.append(rng.standard_normal(self.G.z_dim, dtype=np.float32))
            chosen.append(int(rng.integers(len(self._labels))))
        return torch.from_numpy(np.stack(latents)).to(self.device), chosen

    def _labels_of(self, chosen: list[int]) -> Tensor:
        return torch.from_numpy(self._labels[chosen]).to(self.device)


def _check_match(G: Generator, dataset: ImageDataset) -> None:
    """Raise ValueError unless the generator makes images of the data set's size and kind from labels like its."""
    spec = dataset.spec
    if (G.img_width, G.img_height, G.img_channels) != (spec.width, spec.height, spec.channels):
        raise ValueError(
            f"the network makes images of {G.img_width}x{G.img_height} px with {G.img_channels} channels, but those "
            f"in {dataset.path} have {spec.width}x{spec.height} px and {spec.channels} channels; give the data set it was "
            f"trained on"
        )
    if G.c_dim and G.c_dim != spec.label_dim:
        raise ValueError(
            f"the network takes labels of length {G.c_dim}, but those of {dataset.path} have length {spec.label_dim} "
            f"(0 = none); give the data set that it was trained on"
        )


def class_indices(labels: np.ndarray) -> Tensor | None:
    """Return the class of each label, int64 [n], where they are one-hot, [n, classes]; None where they are not."""
    is_one_hot = labels.shape[1] > 0 and np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()
    return torch.from_numpy(labels.argmax(axis=1)) if is_one_hot else None


def reference_dataset(
    source: str | Path | ImageFiles, mirror: bool = False, left_out: Collection[str] = ()
) -> ImageDataset:
    """Return the data set that metrics compare with: all its images, unflipped unless asked for, with labels if any.

    It is the same for conditional and unconditional training, on a subset and on all images. Its source is a path, or
    the files of a data set that is open already.
    """
    files = source if isinstance(source, ImageFiles) else ImageFiles(source)
    has_labels = files.label_table is not None
    return ImageDataset(files, use_labels=has_labels, mirror=mirror, left_out=left_out)


def flipped_set(
    names: Sequence[str], source: str | Path | ImageFiles, mirror: bool, workers: int = 0
) -> RealSet | None:
    """Return the images of a data set with flipped ones if training flips them and a metric takes those; else None."""
    return RealSet(reference_dataset(source, mirror=True), workers) if mirror and uses_flipped(names) else None


def reading_workers(device: torch.device) -> int:
    """Return how many processes read images ahead while a device of this kind looks at others."""
    return min(available_cpus() // distributed.local_world_size(), _MAX_WORKERS) if device.type == "cuda" else 0
