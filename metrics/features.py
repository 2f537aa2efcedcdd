"""Runs detectors over pictures and keeps what the metrics need of the features; real sets are kept by content."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metrics import cache
from metrics.detectors import Detector, full_precision
from metrics.frechet import FeatureMoments
from metrics.images import ImageBatch, Progress, RealImages

_CACHE_VERSION = 1  # to be raised when the content of a cache file changes its meaning


class FeatureRecord:
    """The features of a set of pictures: moments of two random halves and, where asked for, every row."""

    def __init__(self, dim: int, count: int, keep_rows: bool = False) -> None:
        self.count = count  # pictures it takes; further ones are ignored
        self.keep_rows = keep_rows
        self.seen = 0
        self.halves = (FeatureMoments(dim), FeatureMoments(dim))
        # A fixed shuffle, because data sets are often sorted, or alternate, by class.
        self._in_second = torch.from_numpy(np.random.RandomState(0).permutation(count) >= (count + 1) // 2)
        self._rows: list[Tensor] = []
        self._classes: list[Tensor] = []

    def append(self, features: Tensor, classes: Tensor | None) -> None:
        """Add the next pictures' features, [n, dim], and class indices, [n], where there are classes."""
        features = features[: self.count - self.seen].cpu()
        in_second = self._in_second[self.seen : self.seen + len(features)]
        self.halves[0].append(features[~in_second])
        self.halves[1].append(features[in_second])
        if self.keep_rows:
            self._rows.append(features)
            if classes is not None:
                self._classes.append(classes[: len(features)].cpu())
        self.seen += len(features)

    @property
    def moments(self) -> FeatureMoments:
        """The moments of all pictures."""
        return self.halves[0].merge(self.halves[1])

    @property
    def rows(self) -> Tensor:
        """All features in order, float32 [count, dim]."""
        return torch.cat(self._rows)

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
        total: How many pictures will come; fewer raise ValueError.
        device: Where the detectors are.
        what: Names the pass in progress reports and errors.
        progress: Called after each batch.
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
                for record in open_records:
                    record.append(features, classes)
        done += len(images)
        progress(what, done, total)
    if done != total:
        raise ValueError(f"{what}: {done} pictures came where {total} were announced")


def real_records(
    detectors: Mapping[str, Detector],
    real: RealImages,
    batch_size: int,
    device: torch.device,
    cache_folder: Path,
    progress: Progress,
) -> dict[str, FeatureRecord]:
    """Return the moments of all real pictures for each detector, from the cache or in one pass over the set."""
    keys = {name: _cache_key(detector, real) for name, detector in detectors.items()}
    records = {name: _load_record(cache_folder, keys[name], detector.dim) for name, detector in detectors.items()}
    missing = {name: FeatureRecord(detectors[name].dim, real.count) for name in records if records[name] is None}
    if missing:
        tasks = [Task(detectors[name], [record]) for name, record in missing.items()]
        collect(tasks, real.batches(batch_size), real.count, device, "real pictures", progress)
    for name, record in missing.items():
        cache.save(cache_folder, "real", keys[name], _to_arrays(record))
    return {name: record for name, record in {**records, **missing}.items() if record is not None}


def _cache_key(detector: Detector, real: RealImages) -> cache.CacheKey:
    return {
        "version": _CACHE_VERSION,
        "content": real.content_hash,
        "count": real.count,
        "detector": detector.name,
        "weights": detector.digest,
    }


def _to_arrays(record: FeatureRecord) -> dict[str, np.ndarray]:
    arrays = {}
    for half, moments in enumerate(record.halves):
        arrays[f"count{half}"] = np.array(moments.count)
        arrays[f"total{half}"] = moments.total.numpy()
        arrays[f"outer{half}"] = moments.outer.numpy()
    return arrays


def _load_record(folder: Path, key: cache.CacheKey, dim: int) -> FeatureRecord | None:
    arrays = cache.load(folder, "real", key)
    if arrays is None:
        return None
    record = FeatureRecord(dim, int(arrays["count0"] + arrays["count1"]))
    record.seen = record.count
    for half, moments in enumerate(record.halves):
        moments.count = int(arrays[f"count{half}"])
        moments.total = torch.from_numpy(arrays[f"total{half}"])
        moments.outer = torch.from_numpy(arrays[f"outer{half}"])
    return record
