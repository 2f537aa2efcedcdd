"""The metrics by name, and the one function that computes them: evaluate(names, real, fake)."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from metrics import cache, proxy
from metrics.detectors import Detector
from metrics.features import FeatureRecord, Task, collect, real_records
from metrics.images import FakeImages, Progress, RealImages, no_progress
from metrics.results import Measurement, MetricResult

BuildDetector = Callable[[RealImages, torch.device, Path, Progress], Detector]

DETECTORS: dict[str, BuildDetector] = {
    "randconv_v1": proxy.build_random_convolutions,
    "democlf_v1": proxy.build_demo_classifier,
}


@dataclass(frozen=True)
class Metric:
    """What a number means and how it is computed."""

    definition: str  # one sentence
    detector: str  # whose features it takes
    num_gen: int  # generated pictures
    check: Callable[[RealImages], None]  # raises ValueError where it cannot judge such pictures
    measure: Callable[[Detector, FeatureRecord, FeatureRecord], Measurement]  # of the real and the generated features
    keep_rows: bool = False  # it needs the features of each generated picture, not only their moments
    comparable_to_published: bool = True


METRICS: dict[str, Metric] = {
    "proxy_fd_randconv_v1": Metric(
        definition="Frechet distance (ddof 1) of 256 edge and colour statistics from fixed random convolutions; "
        "all real pictures against 2,000 generated ones",
        detector="randconv_v1",
        num_gen=proxy.NUM_GEN,
        check=proxy.check_any,
        measure=proxy.measure_distance,
        comparable_to_published=False,
    ),
    "proxy_fd_democlf_v1": Metric(
        definition="Frechet distance (ddof 1) of 128 features, of total variance 10, of a classifier of the demo digits; "
        "all real pictures against 2,000 generated ones",
        detector="democlf_v1",
        num_gen=proxy.NUM_GEN,
        check=proxy.check_digits,
        measure=proxy.measure_digits,
        keep_rows=True,
        comparable_to_published=False,
    ),
}


def parse_names(text: str) -> list[str]:
    """Return the metrics of a comma-separated list, each once; raises ValueError for a name that is not known."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in METRICS]
    if unknown or not names:
        reason = f"there is no metric {', '.join(unknown)} in this version" if unknown else "no metric is named"
        raise ValueError(f"metrics={text!r}: {reason}; choose from {', '.join(METRICS)}")
    return names


def check_suitable(names: Sequence[str], real: RealImages) -> None:
    """Raise ValueError if one of the metrics cannot judge such pictures; takes no time."""
    for name in names:
        METRICS[name].check(real)


def evaluate(
    names: Sequence[str],
    real: RealImages,
    fake: FakeImages,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    seed: int = 0,
    cache_folder: Path | None = None,
    progress: Progress = no_progress,
) -> list[MetricResult]:
    """Compute metrics in one pass over the generated pictures, and one over the real ones unless that is cached.

    Args:
        names: Keys of METRICS.
        real: The real set.
        fake: What is judged.
        device: Where the detectors run.
        batch_size: Pictures at once; does not change a value.
        seed: Of the generated pictures.
        cache_folder: None = `cache.default_folder()`.
        progress: Told about every pass.

    Raises:
        ValueError: A metric does not suit the pictures.
    """
    started_sec = time.monotonic()
    device, folder = torch.device(device), cache_folder or cache.default_folder()
    check_suitable(names, real)
    num_gen = max(METRICS[name].num_gen for name in names)
    batches = fake.batches(num_gen, batch_size, seed)
    wanted = dict.fromkeys(METRICS[name].detector for name in names)
    detectors = {key: DETECTORS[key](real, device, folder, progress) for key in wanted}
    real_features = real_records(detectors, real, batch_size, device, folder, progress)
    fake_features = {name: _empty_record(METRICS[name], detectors) for name in names}
    tasks = [
        Task(detector, [fake_features[name] for name in names if METRICS[name].detector == key])
        for key, detector in detectors.items()
    ]
    collect(tasks, batches, num_gen, device, "generated pictures", progress)
    measured = {}
    for name in names:
        key = METRICS[name].detector
        measured[name] = METRICS[name].measure(detectors[key], real_features[key], fake_features[name])
    seconds = time.monotonic() - started_sec
    return [_result(name, measured[name], detectors, real, fake, seed, seconds) for name in names]


def _empty_record(metric: Metric, detectors: Mapping[str, Detector]) -> FeatureRecord:
    return FeatureRecord(detectors[metric.detector].dim, metric.num_gen, metric.keep_rows)


def _result(
    name: str,
    measurement: Measurement,
    detectors: Mapping[str, Detector],
    real: RealImages,
    fake: FakeImages,
    seed: int,
    seconds: float,
) -> MetricResult:
    metric = METRICS[name]
    return MetricResult(
        metric=name,
        value=measurement.value,
        floor=measurement.floor,
        details=measurement.details,
        num_real=real.count,
        num_gen=metric.num_gen,
        seed=seed,
        snapshot=fake.name,
        snapshot_hash=fake.content_hash,
        real_hash=real.content_hash,
        detector=detectors[metric.detector].name,
        detector_digest=detectors[metric.detector].digest,
        comparable_to_published=metric.comparable_to_published,
        versions={"torch": torch.__version__, "numpy": np.__version__},
        seconds=seconds,
        timestamp=time.time(),
    )
