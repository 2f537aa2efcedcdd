"""The images that metrics are computed from: of a data set or of a generator."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from dnnlib.names import printable
from dnnlib.parallel import available_cpus
from metrics.images import EPSILON, ImageBatch, Sample
from metrics.registry import uses_flipped
from torch_utils import distributed
from torch_utils.images import to_uint8
from torch_utils.rng import derive_seed
from training.data.dataset import ImageFiles
from training.data.labels import Labels
from training.data.stream import ImageDataset
from training.evaluation.finite import require_finite
from training.networks.generator import Generator

_LATENT_STREAM, _NOISE_STREAM, _OTHER_STREAM = 10, 11, 12  # make the draws of one seed independent
_CHUNK = 50  # images of up to 64 px generated at once
_CHUNK_PIXELS = _CHUNK * 64 * 64
_MAX_WORKERS = 8


class RealSet:
    """All images of a data set, as `metrics.images.RealImages`."""

    def __init__(self, dataset: ImageDataset, workers: int = 0) -> None:
        self.dataset = dataset
        self.workers = workers  # processes that read ahead; 0 = read in this one
        self.name = dataset.path.name
        self.location = str(dataset.path.resolve())
        self.count = len(dataset)
        spec = dataset.spec
        self.image_shape = (spec.channels, spec.height, spec.width)
        self._classes = dataset.labels().classes()
        self.num_classes = 0 if self._classes is None else spec.label_dim

    @cached_property
    def content_hash(self) -> str:
        return self.dataset.content_hash()

    def batches(self, chosen: range, batch_size: int) -> Iterator[ImageBatch]:
        loader = DataLoader(
            Subset(self.dataset, chosen), batch_size, num_workers=self.workers, pin_memory=torch.cuda.is_available()
        )
        for first, (images, _) in zip(range(0, len(chosen), batch_size), loader, strict=True):
            yield images, None if self._classes is None else self._classes[list(chosen[first : first + batch_size])]


class FakeSet(RealSet):
    """The images of a folder or zip, made by any generator, as `metrics.images.FakeImages`.

    Classes are numbered as those of the real images, by name where both have names.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        workers: int = 0,
        class_names: Sequence[str] = (),  # of the real images; () = they have none
    ) -> None:
        super().__init__(dataset, workers)
        own_classes = self._classes
        self._classes = renumbered(own_classes, dataset.spec.class_names, class_names)
        self._has_other_classes = own_classes is not None and self._classes is None

    def notes(self) -> list[str]:
        """Return lines about the files, as the data set does, and labels that mean nothing for the real images."""
        lines = self.dataset.notes()
        if self._has_other_classes:
            lines.append(
                f"The labels of {self.dataset.path} are not used: its class names are not those of the real images"
            )
        return lines

    def check(self, sample: Sample, count: int) -> None:
        """Raise ValueError if there are fewer images, and for pairs, which only a generator can make."""
        path = self.dataset.path
        if sample is Sample.PAIRS:
            raise ValueError(f"path length moves through the latents of a generator: it takes --network, not {path}")
        if count > self.count:
            raise ValueError(f"{path} has {self.count} images, but {count} generated ones are needed")

    def batches(self, chosen: range, batch_size: int, seed: int = 0) -> Iterator[ImageBatch]:
        return super().batches(chosen, batch_size)

    def pairs(self, chosen: range, batch_size: int, seed: int) -> Iterator[ImageBatch]:
        raise NotImplementedError  # `check` refuses pairs


def renumbered(classes: Tensor | None, names: Sequence[str], other_names: Sequence[str]) -> Tensor | None:
    """Return classes by the numbers of their names in `other_names`; unchanged if either has none; None if one is not there."""
    if classes is None or not (names and other_names):
        return classes
    if not set(names) <= set(other_names):
        return None
    return torch.tensor([other_names.index(name) for name in names])[classes]


class FakeSampler:
    """A generator as `metrics.images.FakeImages`: psi = 1, random noise, labels drawn from those of the data set.

    Where the data set lists its classes in another order than the network was trained with, their names tell which is which.

    Image i depends on (seed, i) alone: its latent and label have their own random generator, and noise is drawn for chunks
    of a fixed size, whatever the batch size.
    """

    def __init__(
        self,
        G: Generator,  # in eval mode
        dataset: ImageDataset,  # the real images, whose labels are drawn from
        name: str = "",  # of the snapshot
        content_hash: str = "",  # of the snapshot
    ) -> None:
        check_size(G, dataset)
        if G.c_dim and G.c_dim != dataset.spec.label_dim:
            raise ValueError(
                f"the network takes labels of length {G.c_dim}, but those of {dataset.path} have length "
                f"{dataset.spec.label_dim} (0 = none); give the data set that it was trained on"
            )
        self.G, self.device = G, next(G.parameters()).device
        self.name, self.content_hash, self.count = name, content_hash, None
        self._labels = dataset.labels() if G.c_dim else Labels(np.zeros((1, 0)))
        self._classes = self._labels.classes()
        self._columns = label_columns(G, dataset)
        # Depends on the image size alone: the values of metrics must not depend on the memory of the GPU.
        self._chunk = min(max(_CHUNK_PIXELS // G.img_resolution**2, 4), _CHUNK)

    def check(self, sample: Sample, count: int) -> None:
        """Accept any number of images and pairs."""

    def batches(self, chosen: range, batch_size: int, seed: int) -> Iterator[ImageBatch]:
        return self._rebatch(chosen, batch_size, lambda start: self._images(start, seed))

    def pairs(self, chosen: range, batch_size: int, seed: int) -> Iterator[ImageBatch]:
        """Yield pairs of images with the same noise and a small distance in w."""
        return self._rebatch(chosen, batch_size, lambda start: self._pairs(start, seed))

    def _rebatch(self, chosen: range, batch_size: int, chunk: Callable[[int], ImageBatch]) -> Iterator[ImageBatch]:
        """Yield batches of the chunks that `chunk(start)` returns."""
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
        z, c, chosen = self._draw(_LATENT_STREAM, seed, start)
        with self._noise_of(seed, start):
            images = self.G(z, c, truncation_psi=1.0, noise_mode="random")
        return to_uint8(require_finite(images)), None if self._classes is None else self._classes[chosen]

    @torch.no_grad()
    def _pairs(self, start: int, seed: int) -> ImageBatch:
        z, c, _ = self._draw(_LATENT_STREAM, seed, start)
        ws = self.G.mapping(z, c)
        other_ws = self.G.mapping(self._draw(_OTHER_STREAM, seed, start)[0], c)
        images = []
        for point in (ws, ws.lerp(other_ws, EPSILON)):
            with self._noise_of(seed, start):
                images.append(require_finite(self.G.synthesis(point, noise_mode="random")))
        return (torch.stack(images, dim=1) + 1) * 127.5, None

    @contextlib.contextmanager
    def _noise_of(self, seed: int, start: int) -> Iterator[None]:
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive_seed(seed, _NOISE_STREAM, start))
            yield

    def _draw(self, stream: int, seed: int, start: int) -> tuple[Tensor, Tensor, list[int]]:
        """Return the latents of a chunk, [chunk, z_dim], its labels, [chunk, c_dim], and the indices of these."""
        latents, chosen = [], []
        for index in range(start, start + self._chunk):
            rng = np.random.default_rng(derive_seed(seed, stream, index))
            latents.append(rng.standard_normal(self.G.z_dim, dtype=np.float32))
            chosen.append(int(rng.integers(len(self._labels))))
        z, c = torch.from_numpy(np.stack(latents)), torch.from_numpy(self._labels[chosen][:, self._columns])
        return z.to(self.device), c.to(self.device), chosen


def label_columns(G: Generator, dataset: ImageDataset) -> list[int]:
    """Return the column of the data set's labels for each of the network's. Raises ValueError if the class names differ."""
    ours, theirs = G.class_names, dataset.spec.class_names
    if not (G.c_dim and ours and theirs):
        return list(range(G.c_dim))
    if set(ours) != set(theirs):
        names = ", ".join(map(printable, sorted(set(ours) ^ set(theirs))[:10]))
        raise ValueError(
            f"the class names of the network and of {dataset.path} differ ({names}); give the data set that it was trained on"
        )
    return [theirs.index(name) for name in ours]


def check_size(G: Generator, dataset: ImageDataset) -> None:
    """Raise ValueError unless image size and channels of a generator are those of the data set."""
    spec = dataset.spec
    if (G.img_width, G.img_height, G.img_channels) != (spec.width, spec.height, spec.channels):
        raise ValueError(
            f"the network makes images of {G.img_width}x{G.img_height} px with {G.img_channels} channels, but those "
            f"in {dataset.path} have {spec.width}x{spec.height} px and {spec.channels} channels; give the data set that it "
            f"was trained on"
        )


def reference_dataset(
    source: str | Path | ImageFiles, mirror: bool = False, left_out: Collection[str] = (), channels: int | None = None
) -> ImageDataset:
    """Return the real images that metrics compare with: all of a data set, with its labels if there are any.

    They do not depend on the --cond and --subset of the training.
    """
    files = source if isinstance(source, ImageFiles) else ImageFiles(source)
    use_labels = files.label_table is not None
    return ImageDataset(files, use_labels=use_labels, mirror=mirror, left_out=left_out, channels=channels)


def flipped_set(
    names: Sequence[str], source: str | Path | ImageFiles, mirror: bool, workers: int = 0
) -> RealSet | None:
    """Return the images and their flipped copies if training flips (`mirror`) and one of the metrics needs that."""
    return RealSet(reference_dataset(source, mirror=True), workers) if mirror and uses_flipped(names) else None


def reading_workers(device: torch.device) -> int:
    """Return the number of processes that read ahead for a device: none on the CPU, which they would share."""
    return min(available_cpus() // distributed.local_world_size(), _MAX_WORKERS) if device.type == "cuda" else 0
