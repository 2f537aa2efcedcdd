"""Runs detectors over images and keeps what the metrics need of the features; those of real sets are cached by content."""

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metrics import cache
from metrics.detectors import Detector, full_precision
from metrics.distances.frechet import FeatureMoments
from metrics.images import ImageBatch, Progress, RealImages
from torch_utils import distributed

_CACHE_VERSION = 3  # to be raised when the content of a cache file changes its meaning


class Keep(enum.Flag):
    """What is kept of features: their moments, or every row (at 2048 features 8 kB per image)."""

    MOMENTS = enum.auto()
    ROWS = enum.auto()


class FeatureRecord:
    """The features of a set of images: as asked for, moments of two random halves, and every row.

    In a run of several processes each one describes a part of the images; `gather` brings the parts together.
    """

    def __init__(self, dim: int, count: int, keep: Keep = Keep.MOMENTS, device: torch.device | str = "cpu") -> None:
        self.count = count  # images it takes; further ones are ignored
        self.keep = keep
        self.device = device  # where features come from, and moments are summed
        # The moments of two random halves of the images, by a fixed shuffle: data sets are often sorted, or alternate, by class.
        self.halves = [FeatureMoments.of_none(dim, device) for _ in range(2)] if Keep.MOMENTS in keep else []
        self._in_second = torch.from_numpy(np.random.RandomState(0).permutation(count) >= (count + 1) // 2)
        self._rows: list[Tensor] = [torch.zeros(0, dim)]
        self._classes: list[Tensor] = []

    def append(self, features: Tensor, classes: Tensor | None, first: int) -> None:
        """Add the features, [n, dim], of the images from number `first` on, and their classes, [n], if there are any."""
        features = features[: max(self.count - first, 0)]
        if self.halves:
            in_second = self._in_second[first : first + len(features)]
            for half, members in zip(self.halves, (~in_second, in_second), strict=True):
                half.append(features[members.nonzero().flatten().to(features.device, non_blocking=True)])
        if Keep.ROWS in self.keep:
            self._rows.append(_copy_to_host(features))
            if classes is not None:
                self._classes.append(classes[: len(features)].cpu())

    def gather(self) -> None:
        """Bring the parts of all processes together on the first one; call it on every process."""
        if torch.device(self.device).type == "cuda":
            torch.cuda.synchronize(self.device)  # rows are on their way to the host
        for half in self.halves:  # in place
            half.count = int(distributed.all_reduce_sum(torch.tensor(half.count, device=self.device)))
            distributed.all_reduce_sum(half.total)
            distributed.all_reduce_sum(half.outer)
        if Keep.ROWS in self.keep:
            self._rows = [distributed.gather_rows(self.rows)]
            if distributed.broadcast_object(bool(self._classes)):
                own = torch.cat([torch.zeros(0, dtype=torch.int64), *self._classes])
                self._classes = [distributed.gather_rows(own)]

    @property
    def moments(self) -> FeatureMoments:
        return self.halves[0].merge(self.halves[1])

    @property
    def rows(self) -> Tensor:
        """All features in order, float32 [count, dim], on the CPU."""
        if len(self._rows) > 1:
            self._rows = [torch.cat(self._rows)]
        return self._rows[0]

    @property
    def classes(self) -> Tensor | None:
        """The class index of each row, int64 [count]; None = the images have no classes."""
        return torch.cat(self._classes) if self._classes else None

    def arrays(self, kind: Keep) -> dict[str, np.ndarray]:
        """Return the arrays of one kind by name."""
        if kind is Keep.ROWS:
            return {"rows": self.rows.numpy()}
        arrays: dict[str, np.ndarray] = {}
        for half, moments in enumerate(self.halves):
            arrays[f"count{half}"] = np.array(moments.count)
            arrays[f"total{half}"] = moments.total.cpu().numpy()
            arrays[f"outer{half}"] = moments.outer.cpu().numpy()
        return arrays

    def restore(self, kind: Keep, arrays: Mapping[str, np.ndarray]) -> None:
        """Put back what `arrays` returned for the same images; classes are not among that."""
        if kind is Keep.ROWS:
            self._rows = [torch.from_numpy(arrays["rows"])]
            return
        for half in (0, 1):
            total, outer = (torch.from_numpy(arrays[f"{name}{half}"]) for name in ("total", "outer"))
            self.halves[half] = FeatureMoments(int(arrays[f"count{half}"]), total, outer)


def _copy_to_host(features: Tensor) -> Tensor:
    """Return features on the CPU, where those of a GPU arrive later, so that it need not be waited for."""
    if not features.is_cuda:
        return features.clone()
    try:
        host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
    except RuntimeError:  # WSL has little memory that can be pinned
        return features.cpu()
    return host.copy_(features, non_blocking=True)


def collect(
    records: Sequence[tuple[Detector, FeatureRecord]],
    source: Callable[[range], Iterable[ImageBatch]],  # gives each process its own images
    what: str,  # in progress bars and errors
    batch_size: int,
    device: torch.device,  # where the detectors are
    progress: Progress,
) -> None:
    """Fill records with the features of their detectors in one pass over the images; call it on every process.

    A detector gets each batch once, as long as one of its records takes more. The first process ends up with all features.
    Raises ValueError on every process if fewer or more images came, or a detector's features are not finite.
    """
    with distributed.raise_on_all_ranks():
        total = max(record.count for _, record in records)
        part, done = part_of(total, batch_size), 0
        detectors = {detector.name: detector for detector, _ in records}
        are_finite = {name: torch.ones([], dtype=torch.bool, device=device) for name in detectors}
        progress(what, 0, total)
        for images, classes in source(part):
            first = part.start + done
            on_device = images.to(device, non_blocking=True)
            for name, detector in detectors.items():
                open_records = [record for own, record in records if own.name == name and first < record.count]
                if open_records:
                    with full_precision():
                        features = detector.network(on_device)
                    are_finite[name] &= features.isfinite().all()
                    for record in open_records:
                        record.append(features, classes, first)
            if done == 0:  # later ones are checked at the end: reading a value makes the host wait for the GPU
                _check_finite(detectors, are_finite, what)
            done += len(images)
            progress(what, min(done * distributed.world_size(), total), total)
        _check_finite(detectors, are_finite, what)
        if done != len(part):
            raise ValueError(f"{what}: {done} images came where {len(part)} were announced")
    for _, record in records:
        record.gather()


def part_of(total: int, batch_size: int) -> range:
    """Return the images of this process: whole batches, the same ones whatever the number of processes."""
    num_batches = -(-total // batch_size)
    rank, world_size = distributed.rank(), distributed.world_size()
    first, stop = (-(-num_batches * number // world_size) for number in (rank, rank + 1))
    return range(first * batch_size, min(stop * batch_size, total))


def _check_finite(detectors: Mapping[str, Detector], are_finite: Mapping[str, Tensor], what: str) -> None:
    for name, is_finite in are_finite.items():
        if not is_finite:
            raise ValueError(
                f"{what}: the features of detector {name} are not finite (NaN or infinite); its weights "
                f"(digest {detectors[name].digest}) are unusable, or the device miscalculates"
            )


@dataclass(frozen=True)
class RealRequest:
    """The real images that a metric takes, and what it keeps of their features."""

    detector: Detector
    real: RealImages
    count: int  # the first so many images
    keep: Keep

    def cache_key(self, kind: Keep) -> cache.CacheKey:
        """Return all that the features of one kind depend on."""
        return {
            "version": _CACHE_VERSION,
            "kind": str(kind.name),
            "content": self.real.content_hash,
            "count": self.count,
            "detector": self.detector.name,
            "weights": self.detector.digest,
        }


@dataclass(frozen=True)
class RealFeatures:
    request: RealRequest
    record: FeatureRecord
    is_cached: bool  # they come from the cache


def real_features(
    requests: Sequence[RealRequest], batch_size: int, device: torch.device, cache_folder: Path, progress: Progress
) -> list[RealFeatures]:
    """Return the features for each request, from the cache or in one pass over each set of images.

    Requests for the same images and detector share a record, which may keep more than one of them asked for. Call it on
    every process; the first one has all features.
    """
    merged: dict[tuple[str, int, str], RealRequest] = {}
    is_first = distributed.rank() == 0
    with distributed.raise_on_all_ranks():  # the hash of a folder reads all its images
        keys = [(request.real.content_hash, request.count, request.detector.name) for request in requests]
        for key, request in zip(keys, requests, strict=True):
            merged[key] = replace(request, keep=request.keep | merged[key].keep) if key in merged else request
        found = {key: _load_record(cache_folder, request) if is_first else None for key, request in merged.items()}
    missing = distributed.broadcast_object([key for key, record in found.items() if record is None])
    with distributed.raise_on_all_ranks():  # they take memory of the GPU
        records = {
            key: found[key] or FeatureRecord(request.detector.dim, request.count, request.keep, device)
            for key, request in merged.items()
        }
    for content in dict.fromkeys(key[0] for key in missing):
        same = [key for key in missing if key[0] == content]
        wanted = [(merged[key].detector, records[key]) for key in same]
        source = partial(merged[same[0]].real.batches, batch_size=batch_size)
        collect(wanted, source, "real images", batch_size, device, progress)
    return [RealFeatures(merged[key], records[key], key not in missing) for key in keys]


def keep_features(found: Sequence[RealFeatures], cache_folder: Path) -> None:
    """Write what `real_features` did not find in the cache into it, on the first process; for when all else succeeded."""
    if distributed.rank() != 0:
        return
    for features in {id(features.record): features for features in found if not features.is_cached}.values():
        request, record = features.request, features.record
        for kind in request.keep:
            cache.save(cache_folder, "real", request.cache_key(kind), record.arrays(kind))


def _load_record(folder: Path, request: RealRequest) -> FeatureRecord | None:
    """Return the record of a request if the cache has all that it is to keep; its rows come without classes."""
    record = FeatureRecord(request.detector.dim, request.count, request.keep)
    for kind in request.keep:
        arrays = cache.load(folder, "real", request.cache_key(kind))
        if arrays is None:
            return None
        record.restore(kind, arrays)
    return record
