"""The metrics by name, and the one function that computes them: evaluate(names, real, fake)."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from metrics import cache
from metrics.detectors import BuildContext, Detector, DetectorKind
from metrics.families import dct_proxy, path_length, proxy
from metrics.families import dinov2 as dinov2_metrics
from metrics.families import inception as inception_metrics
from metrics.families import module as module_metrics
from metrics.families import neighbours as neighbour_metrics
from metrics.features import (
    FeatureRecord,
    Keep,
    Pass,
    RealFeatures,
    RealRequest,
    Task,
    collect,
    keep_features,
    real_features,
)
from metrics.images import FakeImages, ImageBatch, Progress, RealImages, Sample, no_progress
from metrics.metric import Inputs, Measurement, Metric
from metrics.results import MetricResult
from metrics.weights.published import Source
from torch_utils import distributed

DETECTORS: dict[str, DetectorKind] = {
    **inception_metrics.DETECTORS,
    **neighbour_metrics.DETECTORS,
    **path_length.DETECTORS,
    **dinov2_metrics.DETECTORS,
    **module_metrics.DETECTORS,
    **proxy.DETECTORS,
    **dct_proxy.DETECTORS,
}

FAMILIES = (
    *inception_metrics.FAMILIES,
    *neighbour_metrics.FAMILIES,
    *path_length.FAMILIES,
    *dinov2_metrics.FAMILIES,
    *module_metrics.FAMILIES,
)

METRICS: dict[str, Metric] = {
    **dict(family.standard() for family in FAMILIES),
    **proxy.METRICS,
    **dct_proxy.METRICS,
}

FakeRecords = dict[tuple[Sample, str, int], FeatureRecord]  # by kind of sample, detector and number

GROUPS = {"all-light": ("fid5k_full", "kid5k_full", "is5k", "dc5k5_full")}  # share one pass of 5,000 images


def find(name: str) -> Metric | None:
    """Return the metric of a name: one of METRICS, or one of FAMILIES for another number of generated images."""
    if name in METRICS:
        return METRICS[name]
    return next((metric for family in FAMILIES if (metric := family.find(name))), None)


def get(name: str) -> Metric:
    """Return the metric of a name; raises ValueError for one that is not known."""
    metric = find(name)
    if metric is None:
        raise ValueError(_unknown([name]))
    return metric


def parse_names(text: str) -> list[str]:
    """Return the metrics of a comma-separated list of names and GROUPS, each once; raises ValueError for unknown ones."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    names = list(dict.fromkeys(name for word in words for name in GROUPS.get(word, (word,))))
    unknown = [name for name in names if find(name) is None]
    if unknown or not names:
        raise ValueError(f"metrics={text!r}: {_unknown(unknown)}")
    return names


def check_suitable(names: Sequence[str], real: RealImages, fake: FakeImages | None = None) -> None:
    """Raise ValueError if one of the metrics cannot judge such images, or there are too few; takes no time."""
    for metric in map(get, names):
        metric.check(real)
        if fake is not None:
            fake.check(metric.sample, metric.num_gen)


def see_training(names: Sequence[str]) -> bool:
    """Return whether one of the metrics looks at the real images as training sees them."""
    uses = [get(name).real for name in names]
    return any(use is not None and use.as_trained for use in uses)


def weights_files(names: Sequence[str]) -> list[str]:
    """Return the keys of the published weights that metrics take."""
    kinds = [DETECTORS[get(name).detector] for name in names]
    return list(dict.fromkeys(file.key for kind in kinds for file in kind.files))


def uses_module(names: Sequence[str]) -> bool:
    """Return whether one of the metrics takes the network of --detector-module."""
    return any(get(name).detector == module_metrics.DETECTOR for name in names)


def prepare(names: Sequence[str], weights: Source) -> None:
    """Put the weights of all detectors in place, downloaded if need be; `evaluate` itself downloads nothing.

    In a run of several processes the first one of each machine does it, and the others wait for it, here or where they
    join: call it on every process or outside of runs. Raises ValueError if weights are missing or unusable.
    """
    with distributed.raise_on_all_ranks():
        if distributed.is_first_on_machine():
            for key in dict.fromkeys(get(name).detector for name in names):
                DETECTORS[key].prepare(weights)


def evaluate(
    names: Sequence[str],
    real: RealImages,
    fake: FakeImages,
    *,
    real_as_trained: RealImages | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    seed: int = 0,
    cache_folder: Path | None = None,
    weights: Source | None = None,
    progress: Progress = no_progress,
) -> list[MetricResult]:
    """Compute metrics in one pass over the generated images, and one over the real ones unless that is cached.

    In a run of several processes each describes its part of the images: call it on every process. The first one returns
    the results, the others none.

    Args:
        names: Keys of METRICS, or names of FAMILIES.
        real: The real set.
        fake: What is judged.
        real_as_trained: The real set followed by its mirror images, where training flips; None = it does not.
        device: Where the detectors run.
        batch_size: Images at once; does not change a value.
        seed: Of the generated images.
        cache_folder: None = `cache.default_folder()`.
        weights: Where those of the detectors are; None = wherever `metrics.weights.published.find` finds them.
        progress: Told about every pass.

    Raises:
        ValueError: A metric is not known or does not suit the images, or weights are missing or unusable.
    """
    started_sec = time.monotonic()
    device, folder = torch.device(device), cache_folder or cache.default_folder()
    metrics = {name: get(name) for name in names}
    check_suitable(names, real, fake)
    detectors = _build(metrics, BuildContext(real, device, folder, weights or Source(cache_folder=folder), progress))
    requests = _real_requests(metrics, detectors, real, real_as_trained or real)
    real_ones = real_features(list(requests.values()), batch_size, device, folder, progress)
    described_real = dict(zip(requests, real_ones, strict=True))
    described_fake = _empty_records(metrics, detectors, device)
    for sample in Sample:
        _collect_fake(sample, described_fake, detectors, fake, seed, batch_size, device, progress)
    measured: dict[str, Measurement] = {}
    with distributed.raise_on_all_ranks():
        if distributed.rank() == 0:
            measured = _measure(metrics, detectors, described_real, described_fake, device)
    keep_features(real_ones, folder)  # not before: a run that fails leaves nothing
    seconds = time.monotonic() - started_sec
    return [
        _result(name, measurement, detectors, requests.get(name), described_real.get(name), fake, seed, seconds)
        for name, measurement in measured.items()
    ]


def _measure(
    metrics: Mapping[str, Metric],
    detectors: Mapping[str, Detector],
    real: Mapping[str, RealFeatures],
    fake: FakeRecords,
    device: torch.device,
) -> dict[str, Measurement]:
    """Return what each metric makes of the features."""
    measured = {}
    for name, metric in metrics.items():
        record, real_one = fake[metric.sample, metric.detector, metric.num_gen], real.get(name)
        inputs = Inputs(detectors[metric.detector], device, record, real_one.record if real_one else None)
        measured[name] = metric.measure(inputs)
    return measured


def _build(metrics: Mapping[str, Metric], context: BuildContext) -> dict[str, Detector]:
    """Return the detectors by name; the first process builds them before the others, which may find them in the cache."""
    detectors: dict[str, Detector] = {}
    for is_first in (True, False):
        with distributed.raise_on_all_ranks():
            if (distributed.rank() == 0) == is_first:
                for key in dict.fromkeys(metric.detector for metric in metrics.values()):
                    detectors[key] = DETECTORS[key].build(context)
    return detectors


def _collect_fake(
    sample: Sample,
    records: FakeRecords,
    detectors: Mapping[str, Detector],
    fake: FakeImages,
    seed: int,
    batch_size: int,
    device: torch.device,
    progress: Progress,
) -> None:
    """Fill the records of generated images, or of pairs, in one pass."""
    wanted: dict[str, list[FeatureRecord]] = {}
    for (kind, detector, _), record in records.items():
        if kind is sample:
            wanted.setdefault(detector, []).append(record)
    if not wanted:
        return

    def source(part: range) -> Iterator[ImageBatch]:
        if sample is Sample.PAIRS:
            return fake.pairs(part, batch_size, seed)
        return fake.batches(part, batch_size, seed)

    total = max(record.count for kept in wanted.values() for record in kept)
    tasks = [Task(detectors[key], kept) for key, kept in wanted.items()]
    collect(tasks, source, Pass(f"generated {sample.value}", total, batch_size, device, progress))


def _unknown(names: Sequence[str]) -> str:
    reason = f"there is no metric {', '.join(names)} in this version" if names else "no metric is named"
    return f"{reason}; choose from {', '.join(METRICS)}, or another number, such as fid5k_full"


def _real_requests(
    metrics: Mapping[str, Metric], detectors: Mapping[str, Detector], real: RealImages, real_as_trained: RealImages
) -> dict[str, RealRequest]:
    """Return what each metric that looks at real images wants of them."""
    requests = {}
    for name, metric in metrics.items():
        if metric.real is not None:
            images = real_as_trained if metric.real.as_trained else real
            count = min(images.count, metric.real.max_count or images.count)
            requests[name] = RealRequest(detectors[metric.detector], images, count, metric.real.keep)
    return requests


def _empty_records(
    metrics: Mapping[str, Metric], detectors: Mapping[str, Detector], device: torch.device
) -> FakeRecords:
    """Return the records to be filled; each keeps what any of the metrics wants of it."""
    keep: dict[tuple[Sample, str, int], Keep] = {}
    for metric in metrics.values():
        key = (metric.sample, metric.detector, metric.num_gen)
        keep[key] = keep.get(key, metric.keep) | metric.keep
    return {key: FeatureRecord(detectors[key[1]].dim, key[2], kept, device) for key, kept in keep.items()}


def _result(
    name: str,
    measurement: Measurement,
    detectors: Mapping[str, Detector],
    request: RealRequest | None,
    real: RealFeatures | None,
    fake: FakeImages,
    seed: int,
    seconds: float,
) -> MetricResult:
    metric = get(name)
    detector = detectors[metric.detector]
    return MetricResult(
        metric=name,
        value=measurement.value,
        floor=measurement.floor,
        details=measurement.details,
        settings=measurement.settings,
        num_real=request.count if request else 0,
        num_gen=metric.num_gen,
        seed=seed,
        snapshot=fake.name,
        snapshot_hash=fake.content_hash,
        real_hash=request.real.content_hash if request else "",
        real_cached=real is not None and real.is_cached,
        detector=detector.name,
        detector_digest=detector.digest,
        resize=detector.resize,
        comparable_to_published=metric.comparable_to_published and detector.is_published,
        versions={"torch": torch.__version__, "numpy": np.__version__},
        seconds=seconds,
        timestamp=time.time(),
    )
