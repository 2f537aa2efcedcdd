"""Precision and recall, density and coverage as metrics: values, names, settings, and the detector's weights."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import vgg_golden
from image_sets import FixedImages
from inception_golden import Evaluation

from dnnlib.files import file_sha256
from metrics.detectors import BuildContext
from metrics.families.neighbours import DETECTORS, measure_density_coverage, measure_precision_recall
from metrics.images import no_progress
from metrics.metric import Inputs
from metrics.weights.published import VGG16, Source

CPU = torch.device("cpu")


def test_values_of_images_are_the_peers(evaluation: Evaluation, peers: dict[str, float]) -> None:
    records = [SimpleNamespace(rows=rows, count=len(rows)) for rows in (evaluation.real_rows, evaluation.fake_rows)]
    both = Inputs(detector=None, device=CPU, fake=records[1], real=records[0])  # type: ignore[arg-type]
    for measure, k, main, other, max_real, sources in (
        (measure_precision_recall, 3, "precision", "recall", 200_000, ("prdc.k3", "exact.pr3")),
        (measure_density_coverage, 5, "coverage", "density", 10_000, ("prdc.k5",)),
    ):
        measurement = measure(both)
        for peer in sources:
            expected = {name: peers[f"{peer}_{name}"] for name in (main, other)}
            assert measurement.details == pytest.approx(expected, rel=1e-12)
        assert measurement.value == measurement.details[main] != measurement.details[other]
        assert measurement.settings == {"k": k, "edge_included": True, "max_real": max_real, "distances": "float64"}


def test_the_detector_is_built_from_its_file(tmp_path: Path) -> None:
    torch.save(vgg_golden.small_state(), tmp_path / "vgg16.pth")
    real = FixedImages(torch.zeros(4, 3, 32, 32))
    source = Source(paths={VGG16.key: tmp_path / "vgg16.pth"}, offline=True, cache_folder=tmp_path / "none")
    kind = DETECTORS["vgg16"]
    kind.prepare(source)
    detector = kind.build(BuildContext(real, CPU, source, no_progress))
    assert (detector.name, detector.dim, detector.resize) == ("vgg16", 4096, "tensorflow1_bilinear_224")
    assert detector.digest == file_sha256(tmp_path / "vgg16.pth") and not detector.is_published
