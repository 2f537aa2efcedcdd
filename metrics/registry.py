"""The metrics by name, and the one function that computes them: evaluate(names, real, fake)."""

import difflib
import time
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch

from metrics.detectors import BuildContext, Detector, DetectorKind
from metrics.families import dinov2 as dinov2_metrics
from metrics.families import inception as inception_metrics
from metrics.families import module as module_metrics
from metrics.families import neighbours as neighbour_metrics
from metrics.families import path_length, proxy
from metrics.features import FeatureRecord, Keep, RealFeatures, RealRequest, collect, keep_features, real_features
from metrics.images import FakeImages, Progress, RealImages, Sample, no_progress
from metrics.metric import Inputs, Measurement, Metric
from metrics.results import MetricResult
from metrics.weights.published import Source
from torch_utils import distributed

_MODULES = (inception_metrics, neighbour_metrics, path_length, dinov2_metrics, module_metrics)

DETECTORS: dict[str, DetectorKind] = {
    name: kind for module in (*_MODULES, proxy) for name, kind in module.DETECTORS.items()
}
FAMILIES = tuple(family for module in _MODULES for family in module.FAMILIES)
METRICS: dict[str, Metric] = {**dict(family.standard() for family in FAMILIES), **proxy.METRICS}
GROUPS = {"all-light": ("fid5k_full", "kid5k_full", "is5k", "dc5k5_full")}  # share one pass of 5,000 images
RETIRED = {"proxy_fd_dct_v1": "proxy_fd_randconv_v1", "proxy_fd_democlf_v1": "proxy_fd_clf_v1"}


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
    retired = [name for name in names if name in RETIRED]
    names = [name for name in names if name not in RETIRED]
    if retired and not names:
        raise ValueError(f"--metrics={text}: {retired[0]} no longer exists; use {RETIRED[retired[0]]}")
    for name in retired:
        print(f"Warning: {name} no longer exists and is skipped; {RETIRED[name]} replaces it.")
    unknown = [name for name in names if find(name) is None]
    if unknown or not names:
        raise ValueError(f"--metrics={text}: {_unknown(unknown)}")
    return names


def check_suitable(names: Sequence[str], real: RealImages, fake: FakeImages | None = None) -> None:
    """Raise ValueError if one of the metrics cannot be computed of such images, or of so few."""
    for name in names:
        metric = get(name)
        metric.check(real)
        if fake is not None:
            try:
                fake.check(metric.sample, metric.num_gen)
            except ValueError as error:
                is_short = metric.sample is Sample.IMAGES and fake.count is not None
                advice = for_fewer(name, fake.count or 0) if is_short else ""
                raise ValueError(f"{name}: {error}{advice}") from None


def for_fewer(name: str, count: int) -> str:
    """Advice for a metric that takes more generated images than the `count` there are."""
    family = next((family for family in FAMILIES if family.find(name)), None)
    if family is None:
        return "; this metric is for that number only"
    if count < family.min_gen:
        return f"; metrics of its kind take at least {family.min_gen}"
    return f"; choose {family.template.format(count=count)}"


def uses_flipped(names: Sequence[str]) -> bool:
    """Return whether one of the metrics takes flipped real images too where training flips."""
    return any(use is not None and use.as_trained for use in (get(name).real for name in names))


def weights_files(names: Sequence[str]) -> list[str]:
    """Return the keys of the published weights that metrics take."""
    kinds = [DETECTORS[get(name).detector] for name in names]
    return list(dict.fromkeys(file.key for kind in kinds for file in kind.readers))


def uses_module(names: Sequence[str]) -> bool:
    """Return whether one of the metrics takes the network of --detector-module."""
    return any(get(name).detector == module_metrics.DETECTOR for name in names)


def prepare(names: Sequence[str], weights: Source) -> None:
    """Obtain the weights of all detectors, downloaded if need be; `evaluate` itself downloads nothing.

    Call it on every process or outside of runs: the first process of each machine does it, the others wait. Raises
    ValueError if weights are missing or unusable.
    """
    with distributed.raise_on_all_ranks():
        if distributed.is_first_on_machine():
            for key in dict.fromkeys(get(name).detector for name in names):
                DETECTORS[key].prepare(weights)
            if uses_module(names):
                module_metrics.prepare_module(weights)


def evaluate(
    names: Sequence[str],
    real: RealImages,
    fake: FakeImages,
    *,
    real_as_trained: RealImages | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    seed: int = 0,
    weights: Source | None = None,
    progress: Progress = no_progress,
) -> list[MetricResult]:
    """Compute metrics in one pass over the generated images, and one over the real ones unless that is cached.

    In a run of several processes each computes the features of its part of the images: call it on every process. The
    first one returns the results, the others none.
    Raises ValueError if a metric is not known or does not suit the images, or weights are missing or unusable.

    Args:
        real_as_trained: The real set followed by its mirror images, where training flips; None = it does not.
        batch_size: Images at once; does not change a value.
        weights: Where those of the detectors are, and the cache; None = wherever `metrics.weights.published.find` finds them.
    """
    started_sec = time.monotonic()
    device, weights = torch.device(device), weights or Source()
    metrics = {name: get(name) for name in names}
    check_suitable(names, real, fake)
    detectors = _build(metrics, BuildContext(real, device, weights, progress))
    requests = _real_requests(metrics, detectors, real, real_as_trained or real)
    found = real_features(list(requests.values()), batch_size, device, weights.folder, progress)
    described_real = dict(zip(requests, found, strict=True))
    described_fake = _collect_fake(metrics, detectors, fake, seed, batch_size, device, progress)
    measured: dict[str, Measurement] = {}
    with distributed.raise_on_all_ranks():
        if distributed.rank() == 0:
            for name, metric in metrics.items():
                real_record = described_real[name].record if metric.real else None
                fake_record = described_fake[metric.sample, metric.detector, metric.num_gen]
                inputs = Inputs(detectors[metric.detector], device, fake_record, real_record)
                measured[name] = metric.measure(inputs)
    keep_features(found, weights.folder)  # not before: a run that fails leaves nothing
    seconds = time.monotonic() - started_sec
    return [
        _result(name, measurement, detectors, described_real.get(name), fake, seed, seconds)
        for name, measurement in measured.items()
    ]


def _build(metrics: Mapping[str, Metric], context: BuildContext) -> dict[str, Detector]:
    """Return the detectors by name; the first process builds them before the others, which may find them in the cache.

    Raises PeerError on every process unless all have the same: they describe parts of one set of images.
    """
    detectors: dict[str, Detector] = {}
    for is_first in (True, False):
        with distributed.raise_on_all_ranks():
            if (distributed.rank() == 0) == is_first:
                for key in dict.fromkeys(metric.detector for metric in metrics.values()):
                    detectors[key] = DETECTORS[key].build(context)
    distributed.assert_equal_across_ranks(
        "the detectors",
        [detector.digest for detector in detectors.values()],
        "they share no cache folder (set STYLEFORMER_CACHE_DIR or calc_metrics.py --cache to one that all can write)",
    )
    return detectors


def _real_requests(
    metrics: Mapping[str, Metric], detectors: Mapping[str, Detector], real: RealImages, real_as_trained: RealImages
) -> dict[str, RealRequest]:
    """Return the requests of the metrics that take real images."""
    requests = {}
    for name, metric in metrics.items():
        if metric.real is not None:
            images = real_as_trained if metric.real.as_trained else real
            count = min(images.count, metric.real.max_count or images.count)
            requests[name] = RealRequest(detectors[metric.detector], images, count, metric.real.keep)
    return requests


def _collect_fake(
    metrics: Mapping[str, Metric],
    detectors: Mapping[str, Detector],
    fake: FakeImages,
    seed: int,
    batch_size: int,
    device: torch.device,
    progress: Progress,
) -> dict[tuple[Sample, str, int], FeatureRecord]:
    """Return the features of generated images and of pairs, in one pass over each; a record keeps what any metric wants."""
    keep: dict[tuple[Sample, str, int], Keep] = {}
    for metric in metrics.values():
        key = (metric.sample, metric.detector, metric.num_gen)
        keep[key] = keep.get(key, metric.keep) | metric.keep
    with distributed.raise_on_all_ranks():  # they take memory of the GPU
        records = {key: FeatureRecord(detectors[key[1]].dim, key[2], kept, device) for key, kept in keep.items()}
    for sample, batches in ((Sample.IMAGES, fake.batches), (Sample.PAIRS, fake.pairs)):
        wanted = [(detectors[name], record) for (kind, name, _), record in records.items() if kind is sample]
        if wanted:
            source = partial(batches, batch_size=batch_size, seed=seed)
            collect(wanted, source, f"generated {sample.value}", batch_size, device, progress)
    return records


def _unknown(names: Sequence[str]) -> str:
    reason = f"there is no metric {', '.join(names)} in this version" if names else "no metric is named"
    close = difflib.get_close_matches(names[0], METRICS, n=1) if names else []
    hint = f"did you mean {close[0]}? Or " if close else ""
    return f"{reason}; {hint}choose from {', '.join(METRICS)}, or another number, such as fid5k_full"


def _result(
    name: str,
    measurement: Measurement,
    detectors: Mapping[str, Detector],
    real: RealFeatures | None,
    fake: FakeImages,
    seed: int,
    seconds: float,
) -> MetricResult:
    metric = get(name)
    detector = detectors[metric.detector]
    return MetricResult(
        metric=name,
        **vars(measurement),
        num_real=real.request.count if real else 0,
        num_gen=metric.num_gen,
        seed=seed,
        snapshot=fake.name,
        snapshot_hash=fake.content_hash,
        real_path=real.request.real.location if real else "",
        real_hash=real.request.real.content_hash if real else "",
        real_cached=real is not None and real.is_cached,
        detector=detector.name,
        detector_digest=detector.digest,
        resize=detector.resize,
        comparable_to_published=metric.comparable_to_published and detector.is_published,
        versions={"torch": torch.__version__, "numpy": np.__version__},
        seconds=seconds,
        timestamp=time.time(),
    )
