"""The metrics by name, and the one function that computes them: evaluate(names, real, fake)."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from metrics import cache, inception_metrics, proxy
from metrics.detectors import BuildContext, Detector
from metrics.features import FeatureRecord, Keep, RealRequest, Task, collect, real_records
from metrics.images import FakeImages, Progress, RealImages, no_progress
from metrics.metric import Measurement, Metric
from metrics.results import MetricResult
from metrics.weights import Source
from torch_utils import distributed


def _needs_nothing(source: Source, progress: Progress) -> None:
    pass


@dataclass(frozen=True)
class DetectorKind:
    """How a detector comes into being."""

    build: Callable[[BuildContext], Detector]
    prepare: Callable[[Source, Progress], None] = _needs_nothing  # puts its weights in place and tries them


DETECTORS: dict[str, DetectorKind] = {
    inception_metrics.DETECTOR: DetectorKind(inception_metrics.build_inception, inception_metrics.prepare_inception),
    "randconv_v1": DetectorKind(proxy.build_random_convolutions),
    "democlf_v1": DetectorKind(proxy.build_demo_classifier),
}

FAMILIES = inception_metrics.FAMILIES

METRICS: dict[str, Metric] = {**dict(family.standard() for family in FAMILIES), **proxy.METRICS}


def find(name: str) -> Metric | None:
    """Return the metric of a name: one of METRICS, or one of FAMILIES for another number of generated pictures."""
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
    """Return the metrics of a comma-separated list, each once; raises ValueError for a name that is not known."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if find(name) is None]
    if unknown or not names:
        raise ValueError(f"metrics={text!r}: {_unknown(unknown)}")
    return names


def check_suitable(names: Sequence[str], real: RealImages) -> None:
    """Raise ValueError if one of the metrics cannot judge such pictures; takes no time."""
    for name in names:
        get(name).check(real)


def see_training(names: Sequence[str]) -> bool:
    """Return whether one of the metrics looks at the real pictures as training sees them."""
    uses = [get(name).real for name in names]
    return any(use is not None and use.as_trained for use in uses)


def prepare(names: Sequence[str], weights: Source, progress: Progress = no_progress) -> None:
    """Put the weights of all detectors in place, downloaded if need be; `evaluate` itself downloads nothing.

    In a run of several processes the first one does it and the others wait: call it on every rank or outside of runs.
    Raises ValueError in every process if weights are missing or unusable.
    """
    failure: ValueError | OSError | None = None
    if distributed.rank() == 0:
        try:
            for key in dict.fromkeys(get(name).detector for name in names):
                DETECTORS[key].prepare(weights, progress)
        except (ValueError, OSError) as error:
            failure = error
    failure = distributed.share(failure)
    if failure is not None:
        raise failure


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
    """Compute metrics in one pass over the generated pictures, and one over the real ones unless that is cached.

    Args:
        names: Keys of METRICS, or names of FAMILIES.
        real: The real set.
        fake: What is judged.
        real_as_trained: The real set followed by its mirror images, where training flips; None = it does not.
        device: Where the detectors run.
        batch_size: Pictures at once; does not change a value.
        seed: Of the generated pictures.
        cache_folder: None = `cache.default_folder()`.
        weights: Where those of the detectors are; None = wherever `metrics.weights.find` finds them.
        progress: Told about every pass.

    Raises:
        ValueError: A metric is not known or does not suit the pictures, or weights are missing or unusable.
    """
    started_sec = time.monotonic()
    device, folder = torch.device(device), cache_folder or cache.default_folder()
    check_suitable(names, real)
    metrics = {name: get(name) for name in names}
    num_gen = max(metric.num_gen for metric in metrics.values())
    batches = fake.batches(num_gen, batch_size, seed)
    context = BuildContext(real, device, folder, weights or Source(cache_folder=folder), progress)
    detectors = {key: DETECTORS[key].build(context) for key in {metric.detector: None for metric in metrics.values()}}
    requests = _real_requests(metrics, detectors, real, real_as_trained or real)
    records = real_records(list(requests.values()), batch_size, device, folder, progress)
    real_features = dict(zip(requests, records, strict=True))
    fake_features = _empty_records(metrics, detectors)
    tasks = [Task(detectors[key], list(records.values())) for key, records in fake_features.items()]
    collect(tasks, batches, num_gen, device, "generated pictures", progress)
    measured = {}
    for name, metric in metrics.items():
        fake_record = fake_features[metric.detector][metric.num_gen]
        measured[name] = metric.measure(detectors[metric.detector], real_features.get(name), fake_record)
    seconds = time.monotonic() - started_sec
    return [
        _result(name, measured[name], detectors[metric.detector], requests.get(name), fake, seed, seconds)
        for name, metric in metrics.items()
    ]


def _unknown(names: Sequence[str]) -> str:
    reason = f"there is no metric {', '.join(names)} in this version" if names else "no metric is named"
    return f"{reason}; choose from {', '.join(METRICS)}, or another number, such as fid5k_full"


def _real_requests(
    metrics: Mapping[str, Metric], detectors: Mapping[str, Detector], real: RealImages, real_as_trained: RealImages
) -> dict[str, RealRequest]:
    """Return what each metric that looks at real pictures wants of them."""
    requests = {}
    for name, metric in metrics.items():
        if metric.real is not None:
            images = real_as_trained if metric.real.as_trained else real
            count = min(images.count, metric.real.max_count or images.count)
            requests[name] = RealRequest(detectors[metric.detector], images, count, metric.real.keep)
    return requests


def _empty_records(
    metrics: Mapping[str, Metric], detectors: Mapping[str, Detector]
) -> dict[str, dict[int, FeatureRecord]]:
    """Return a record by detector and number of generated pictures; it keeps what any of the metrics wants of them."""
    keep: dict[tuple[str, int], Keep] = {}
    for metric in metrics.values():
        key = (metric.detector, metric.num_gen)
        keep[key] = keep.get(key, metric.keep) | metric.keep
    records: dict[str, dict[int, FeatureRecord]] = {key: {} for key in detectors}
    for (detector, num_gen), kept in keep.items():
        records[detector][num_gen] = FeatureRecord(detectors[detector].dim, num_gen, kept)
    return records


def _result(
    name: str,
    measurement: Measurement,
    detector: Detector,
    request: RealRequest | None,
    fake: FakeImages,
    seed: int,
    seconds: float,
) -> MetricResult:
    metric = get(name)
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
        detector=detector.name,
        detector_digest=detector.digest,
        resize=detector.resize,
        comparable_to_published=metric.comparable_to_published and detector.is_published,
        versions={"torch": torch.__version__, "numpy": np.__version__},
        seconds=seconds,
        timestamp=time.time(),
    )
