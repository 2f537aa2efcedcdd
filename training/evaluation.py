"""Hands a generator and a data set to the metrics."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dnnlib.download import file_sha256
from dnnlib.label_table import read_label_table
from dnnlib.picture_tree import PictureTree
from metrics.images import ImageBatch
from metrics.registry import check_suitable, evaluate, prepare, see_training
from metrics.results import MetricResult, append_rows
from metrics.weights import INCEPTION, Source, command, find
from torch_utils import distributed
from torch_utils.rng import derive_seed
from training.dataset import ImageDataset
from training.networks.generator import Generator
from training.preview import to_uint8

_LATENT_STREAM, _NOISE_STREAM = 10, 11  # tell the draws of a seed apart
_CHUNK = 50  # pictures of up to 64 px generated at once
_CHUNK_PIXELS = _CHUNK * 64 * 64


class RealSet:
    """All pictures of a data set as `metrics.images.RealImages`."""

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset
        self.count = len(dataset)
        self.content_hash = dataset.content_hash()
        spec = dataset.spec
        self.image_shape = (spec.channels, spec.height, spec.width)
        self._classes = class_indices(dataset.labels())
        self.num_classes = 0 if self._classes is None else spec.label_dim

    def batches(self, batch_size: int) -> Iterator[ImageBatch]:
        """Yield the pictures in the order of the data set."""
        for start in range(0, self.count, batch_size):
            indices = range(start, min(start + batch_size, self.count))
            images = torch.from_numpy(np.stack([self.dataset.image(index) for index in indices]))
            yield images, None if self._classes is None else self._classes[start : indices.stop]


class FakeSet:
    """The pictures of a folder or zip as `metrics.images.FakeImages`: those of any generator, saved as files."""

    def __init__(self, real: RealSet) -> None:
        self.pictures = real
        self.name = real.dataset.path.name
        self.content_hash = real.content_hash

    def batches(self, count: int, batch_size: int, seed: int) -> Iterator[ImageBatch]:
        """Return the first `count` pictures, whatever the seed; raises ValueError where there are fewer."""
        if count > self.pictures.count:
            raise ValueError(
                f"{self.pictures.dataset.path} has {self.pictures.count} pictures, but the metrics look at {count} "
                f"generated ones; give at least so many"
            )
        return self._first(count, batch_size)

    def _first(self, count: int, batch_size: int) -> Iterator[ImageBatch]:
        for done, (images, classes) in zip(
            range(0, count, batch_size), self.pictures.batches(batch_size), strict=False
        ):
            yield images[: count - done], None if classes is None else classes[: count - done]


class FakeSampler:
    """A generator as `metrics.images.FakeImages`: psi 1, random noise, labels drawn from those of the data set.

    Picture i follows from (seed, i): its latent and label by its own generator, its noise because pictures are made in
    chunks of a fixed size, each with a seed of its own, whatever the batch size.
    """

    def __init__(
        self,
        G: Generator,  # in eval mode
        dataset: ImageDataset,  # what the pictures will be compared with, and whose labels they get
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
        # Larger pictures in smaller chunks, by their size alone: what fits a small GPU must not change the value.
        self._chunk = min(max(_CHUNK_PIXELS // G.img_resolution**2, 4), _CHUNK)

    def batches(self, count: int, batch_size: int, seed: int) -> Iterator[ImageBatch]:
        """Yield pictures 0 .. count - 1 of this seed."""
        for start in range(0, count, self._chunk):
            images, classes = self._generate(start, seed)
            parts = range(0, min(self._chunk, count - start), batch_size)
            for part in (slice(first, min(first + batch_size, count - start)) for first in parts):
                yield images[part], None if classes is None else classes[part]

    @torch.no_grad()
    def _generate(self, start: int, seed: int) -> ImageBatch:
        """Return the whole chunk that begins at picture `start`."""
        z, chosen = zip(*(self._draw(seed, index) for index in range(start, start + self._chunk)), strict=True)
        c = torch.from_numpy(self._labels[list(chosen)]).to(self.device)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(derive_seed(seed, _NOISE_STREAM, start))
            images = self.G(torch.from_numpy(np.stack(z)).to(self.device), c, truncation_psi=1.0, noise_mode="random")
        return to_uint8(images), None if self._classes is None else self._classes[list(chosen)]

    def _draw(self, seed: int, index: int) -> tuple[np.ndarray, int]:
        """Return the latent of a picture, float32 [z_dim], and whose label it gets."""
        rng = np.random.default_rng(derive_seed(seed, _LATENT_STREAM, index))
        return rng.standard_normal(self.G.z_dim, dtype=np.float32), int(rng.integers(len(self._labels)))


def _check_match(G: Generator, dataset: ImageDataset) -> None:
    """Raise ValueError unless the generator makes pictures of the data set's size and kind from labels like its."""
    spec = dataset.spec
    if (G.img_width, G.img_height, G.img_channels) != (spec.width, spec.height, spec.channels):
        raise ValueError(
            f"the network makes pictures of {G.img_width}x{G.img_height} px with {G.img_channels} channels, but those "
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


def reference_dataset(path: str | Path, mirror: bool = False) -> ImageDataset:
    """Return the data set that metrics compare with: all its pictures, unflipped unless asked for, with labels if any.

    It is the same for conditional and unconditional training, on a subset and on all pictures.
    """
    has_labels = read_label_table(PictureTree(path)) is not None
    return ImageDataset(path, use_labels=has_labels, mirror=mirror)


def flipped_set(names: Sequence[str], path: str | Path, mirror: bool) -> RealSet | None:
    """Return the pictures of a data set as training sees them if it flips them and a metric asks for that; else None."""
    return RealSet(reference_dataset(path, mirror=True)) if mirror and see_training(names) else None


def check_metrics(names: Sequence[str], dataset: ImageDataset) -> None:
    """Raise ValueError if a metric cannot judge the pictures of this data set or lacks its weights.

    Missing weights are downloaded, by the first process: call it on every rank or outside of runs.
    """
    if names:
        check_suitable(names, RealSet(reference_dataset(dataset.path)))
        prepare(names, Source(), _announce)


def default_metrics() -> tuple[tuple[str, ...], str]:
    """Return the metrics to compute where none are named, and a line for people; downloads nothing.

    FID where the weights of its detector are in place, without a line; else none, and how to get the weights.
    """
    try:
        if find(INCEPTION, Source()) is not None:
            return ("fid50k_full",), ""
        reason = f"the {INCEPTION.what} are not here. To get them: {command(INCEPTION, Source())}"
    except ValueError as error:
        reason = " ".join(str(error).split())
    return (), f"Snapshots are not measured: {reason}"


def evaluate_snapshot(
    names: Sequence[str], G: Generator, dataset: ImageDataset, snapshot: Path, seed: int
) -> list[MetricResult]:
    """Compute metrics of a run's averaged generator, print them and record them beside its snapshot.

    The first process does the work; call it on every rank or on that one. The seed is that of the run.
    """
    if distributed.rank() != 0:
        return []
    reference, device = reference_dataset(dataset.path), next(G.parameters()).device
    fake = FakeSampler(G, reference, device, snapshot.name, file_sha256(snapshot))
    results = evaluate(
        names,
        RealSet(reference),
        fake,
        real_as_trained=flipped_set(names, dataset.path, mirror=len(dataset) > dataset.num_files),
        device=device,
        seed=seed,
    )
    append_rows(results, snapshot.parent)
    for result in results:
        print(result.summary(), flush=True)
    return results


def _announce(what: str, done: int, total: int) -> None:
    """Print what begins; no bar, because a run's output goes to its log as well."""
    if done == 0:
        print(f"{what} ({total:,} bytes)", flush=True)
