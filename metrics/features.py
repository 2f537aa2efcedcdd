"""Runs detectors over pictures and keeps what the metrics need of the features; real sets are kept by content."""

import enum
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metrics import cache
from metrics.detectors import Detector, full_precision
from metrics.frechet import FeatureMoments
from metrics.images import ImageBatch, Progress, RealImages

_CACHE_VERSION = 1  # to be raised when the content of a cache file changes its meaning


class Keep(enum.Flag):
    """What is kept of features: their moments, or every row (at 2048 features 8 kB a picture)."""

    MOMENTS = enum.auto()
    ROWS = enum.auto()


class FeatureRecord:
    """The features of a set of pictures: as asked for, moments of two random halves, and every row."""

    def __init__(self, dim: int, count: int, keep: Keep = Keep.MOMENTS) -> None:
        self.count = count  # pictures it takes; further ones are ignored
        self.keep = keep
        self.seen = 0
        self._halves = (FeatureMoments(dim), FeatureMoments(dim)) if Keep.MOMENTS in keep else None
        # A fixed shuffle, because data sets are often sorted, or alternate, by class.
        self._in_second = torch.from_numpy(np.random.RandomState(0).permutation(count) >= (count + 1) // 2)
        self._rows: list[Tensor] = []
        self._classes: list[Tensor] = []

    def append(self, features: Tensor, classes: Tensor | None) -> None:
        """Add the next pictures' features, [n, dim], and class indices, [n], where there are classes."""
        features = features[: self.count - self.seen].cpu()
        if Keep.MOMENTS in self.keep:
            in_second = self._in_second[self.seen : self.seen + len(features)]
            self.halves[0].append(features[~in_second])
            self.halves[1].append(features[in_second])
        if Keep.ROWS in self.keep:
            self._rows.append(features)
            if classes is not None:
                self._classes.append(classes[: len(features)].cpu())
        self.seen += len(features)

    @property
    def halves(self) -> tuple[FeatureMoments, FeatureMoments]:
        """The moments of two random halves of the pictures."""
        assert self._halves is not None  # moments are kept
        return self._halves

    @property
    def moments(self) -> FeatureMoments:
        """The moments of all pictures."""
        return self.halves[0].merge(self.halves[1])

    @property
    def rows(self) -> Tensor:
        """All features in order, float32 [count, dim]."""
        return torch.cat(self._rows)

    def restore_rows(self, rows: Tensor) -> None:
        """Put back the rows that a record of the same pictures had."""
        self._rows = [rows]

    @property
    def classes(self) -> Tensor | None:
        """The class index of each row, int64 [count]; None = the pictures have no classes."""
        return torch.cat(self._classes) if self._classes else None


@dataclass(frozen=True)
class Task:
    """A detector and the records that want its features."""

    detector: Detector
    records: Sequence[FeatureRecord]


def collect(
    tasks: Sequence[Task],
    batches: Iterable[ImageBatch],
    total: int,
    device: torch.device,
    what: str,
    progress: Progress,
) -> None:
    """Fill the records of all tasks in one pass over the pictures.

    Args:
        tasks: Each detector sees each batch once, as long as one of its records takes more.
        batches: Pictures, `total` of them.
        total: How many pictures will come.
        device: Where the detectors are.
        what: Names the pass in progress reports and errors.
        progress: Called after each batch.

    Raises:
        ValueError: Fewer or more pictures came, or a detector's features are not finite.
    """
    done = 0
    progress(what, done, total)
    for images, classes in batches:
        on_device = images.to(device)
        for task in tasks:
            open_records = [record for record in task.records if record.seen < record.count]
            if open_records:
                with full_precision():
                    features = task.detector(on_device)
                _check_finite(features, task.detector, what)
                for record in open_records:
                    record.append(features, classes)
        done += len(images)
        progress(what, done, total)
    if done != total:
        raise ValueError(f"{what}: {done} pictures came where {total} were announced")


@dataclass(frozen=True)
class RealRequest:
    """What a metric wants of the real pictures."""

    detector: Detector
    real: RealImages
    count: int  # the first so many pictures
    keep: Keep

    def cache_key(self) -> cache.CacheKey:
        """Return all that the features depend on."""
        return {
            "version": _CACHE_VERSION,
            "content": self.real.content_hash,
            "count": self.count,
            "detector": self.detector.name,
            "weights": self.detector.digest,
        }


def real_records(
    requests: Sequence[RealRequest], batch_size: int, device: torch.device, cache_folder: Path, progress: Progress
) -> list[FeatureRecord]:
    """Return a record for each request, from the cache or in one pass over each set of pictures.

    Requests for the same pictures and detector share a record, which may keep more than one of them asked for.
    """
    keys = [json.dumps(dict(request.cache_key())) for request in requests]
    merged: dict[str, RealRequest] = {}
    for key, request in zip(keys, requests, strict=True):
        merged[key] = replace(request, keep=request.keep | merged[key].keep) if key in merged else request
    records = {key: _load_record(cache_folder, request) for key, request in merged.items()}
    missing = {key: request for key, request in merged.items() if records[key] is None}
    fresh = {key: FeatureRecord(request.detector.dim, request.count, request.keep) for key, request in missing.items()}
    for content in dict.fromkeys(request.real.content_hash for request in missing.values()):
        same = {key: request for key, request in missing.items() if request.real.content_hash == content}
        _collect_real(list(same.values()), [fresh[key] for key in same], batch_size, device, progress)
    for key, record in fresh.items():
        _save_record(cache_folder, missing[key], record)
    complete = {key: record for key, record in {**records, **fresh}.items() if record is not None}
    return [complete[key] for key in keys]


def _collect_real(
    requests: list[RealRequest],
    records: list[FeatureRecord],
    batch_size: int,
    device: torch.device,
    progress: Progress,
) -> None:
    """Fill the records, one for each request, in a pass over the set of pictures that all requests name."""
    detectors = {id(request.detector): request.detector for request in requests}
    tasks = [
        Task(
            detector,
            [record for request, record in zip(requests, records, strict=True) if request.detector is detector],
        )
        for detector in detectors.values()
    ]
    total = max(request.count for request in requests)
    collect(tasks, _first(requests[0].real.batches(batch_size), total), total, device, "real pictures", progress)


def _first(batches: Iterable[ImageBatch], total: int) -> Iterator[ImageBatch]:
    """Yield the first pictures of the batches, at most `total`."""
    left = total
    for images, classes in batches:
        yield images[:left], None if classes is None else classes[:left]
        left -= len(images)
        if left <= 0:
            return


def _check_finite(features: Tensor, detector: Detector, what: str) -> None:
    if not features.isfinite().all():
        raise ValueError(
            f"{what}: the detector {detector.name} answers with numbers that are not finite (NaN or infinite), so there "
            f"is nothing to measure; its weights (digest {detector.digest}) are unusable, or the device miscalculates"
        )


def _save_record(folder: Path, request: RealRequest, record: FeatureRecord) -> None:
    key = request.cache_key()
    if Keep.MOMENTS in record.keep:
        arrays: dict[str, np.ndarray] = {}
        for half, moments in enumerate(record.halves):
            arrays[f"count{half}"] = np.array(moments.count)
            arrays[f"total{half}"] = moments.total.numpy()
            arrays[f"outer{half}"] = moments.outer.numpy()
        cache.save(folder, "real", key, arrays)
    if Keep.ROWS in record.keep:
        cache.save(folder, "real-rows", key, {"rows": record.rows.numpy()})


def _load_record(folder: Path, request: RealRequest) -> FeatureRecord | None:
    """Return the record of a request if the cache has all that it is to keep; its rows come without classes."""
    key, record = request.cache_key(), FeatureRecord(request.detector.dim, request.count, request.keep)
    if Keep.MOMENTS in request.keep:
        arrays = cache.load(folder, "real", key)
        if arrays is None:
            return None
        for half, moments in enumerate(record.halves):
            moments.count = int(arrays[f"count{half}"])
            moments.total = torch.from_numpy(arrays[f"total{half}"])
            moments.outer = torch.from_numpy(arrays[f"outer{half}"])
    if Keep.ROWS in request.keep:
        arrays = cache.load(folder, "real-rows", key)
        if arrays is None:
            return None
        record.restore_rows(torch.from_numpy(arrays["rows"]))
    record.seen = record.count
    return record
