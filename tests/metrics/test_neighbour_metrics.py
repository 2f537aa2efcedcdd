"""Precision and recall, density and coverage as metrics: values, names, settings, and the detector's weights."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import vgg_golden
from golden_data import DATA
from image_sets import FixedImages
from inception_golden import Evaluation
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
    values = json.loads((DATA / "metrics/features_v1.json").read_text())
    with np.load(DATA / "metrics/features_v1.npz") as archive:
        both = inputs(torch.from_numpy(archive["full_real"]), torch.from_numpy(archive["full_gen"]))
    measurement = measure_precision_recall(both)
    expected = {name: values[f"full.prdc.k3_{name}"] for name in ("precision", "recall")}
    assert measurement.details == pytest.approx(expected, rel=1e-12)
    assert measurement.value == measurement.details["precision"] != measurement.details["recall"]
    assert measurement.settings == {"k": 3, "edge_included": True, "max_real": 200_000, "distances": "float64"}
    measurement = measure_density_coverage(both)
    expected = {name: values[f"full.prdc.k5_{name}"] for name in ("density", "coverage")}
    assert measurement.details == pytest.approx(expected, rel=1e-12)
    assert measurement.value == measurement.details["coverage"] != measurement.details["density"]
    assert measurement.settings == {"k": 5, "edge_included": True, "max_real": 10_000, "distances": "float64"}


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
