"""Precision and recall, density and coverage as metrics: values, names, settings, and the detector's weights."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import vgg_golden
from image_sets import FixedImages
from inception_golden import Evaluation, recorded_features
from torch import Tensor

from dnnlib.files import file_sha256
from metrics.detectors import BuildContext
from metrics.families.neighbours import (
    DETECTORS,
    FAMILIES,
    measure_density_coverage,
    measure_precision_recall,
)
from metrics.images import no_progress
from metrics.metric import Inputs
from metrics.weights.published import VGG16, Source

CPU = torch.device("cpu")
PRECISION_RECALL, DENSITY_COVERAGE = FAMILIES


def inputs(real: Tensor, fake: Tensor) -> Inputs:
    """What a metric sees of these features."""
    records = [SimpleNamespace(rows=rows, count=len(rows)) for rows in (real, fake)]
    return Inputs(detector=None, device=CPU, fake=records[1], real=records[0])  # type: ignore[arg-type]


def test_values_are_the_recorded_ones() -> None:
    real, fake, values = recorded_features("full")
    both = inputs(real, fake)
    for measure, k, main, other, max_real in (
        (measure_precision_recall, 3, "precision", "recall", 200_000),
        (measure_density_coverage, 5, "coverage", "density", 10_000),
    ):
        measurement = measure(both)
        expected = {name: values[f"full.prdc.k{k}_{name}"] for name in (main, other)}
        assert measurement.details == pytest.approx(expected, rel=1e-12)
        assert measurement.value == measurement.details[main] != measurement.details[other]
        assert measurement.settings == {"k": k, "edge_included": True, "max_real": max_real, "distances": "float64"}


def test_values_of_images_are_the_peers(evaluation: Evaluation, peers: dict[str, float]) -> None:
    both = inputs(evaluation.real_rows, evaluation.fake_rows)
    assert measure_density_coverage(both).details == {
        "density": pytest.approx(peers["prdc.k5_density"], rel=1e-12),
        "coverage": pytest.approx(peers["prdc.k5_coverage"], rel=1e-12),
    }
    for peer in ("prdc.k3", "exact.pr3"):
        details = measure_precision_recall(both).details
        assert details == {"precision": peers[f"{peer}_precision"], "recall": peers[f"{peer}_recall"]}


def test_the_detector_is_built_from_its_file(tmp_path: Path) -> None:
    torch.save(vgg_golden.small_state(), tmp_path / "vgg16.pth")
    real = FixedImages(torch.zeros(4, 3, 32, 32))
    source = Source(paths={VGG16.key: tmp_path / "vgg16.pth"}, offline=True, cache_folder=tmp_path / "none")
    kind = DETECTORS["vgg16"]
    kind.prepare(source)
    detector = kind.build(BuildContext(real, CPU, tmp_path, source, no_progress))
    assert (detector.name, detector.dim, detector.resize) == ("vgg16", 4096, "tensorflow1_bilinear_224")
    assert detector.digest == file_sha256(tmp_path / "vgg16.pth") and not detector.is_published
