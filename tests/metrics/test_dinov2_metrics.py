"""Distances of DINOv2 features, with a tiny network in place of ViT-L/14."""

from functools import partial
from pathlib import Path

import pytest
import torch
from dinov2_tiny import SIZES, state_of
from image_sets import FixedImages, GeneratedImages
from inception_golden import recorded_images

from dnnlib.files import file_sha256
from metrics.detectors import full_precision
from metrics.distances.frechet import frechet_distance
from metrics.distances.kernel import kernel_distance
from metrics.families import dinov2 as dinov2_metrics
from metrics.networks.dinov2 import load_dinov2
from metrics.registry import evaluate
from metrics.weights.published import DINOV2, Source

TINY = SIZES["resized"]
NAMES = ["fd_dinov2_60_full", "kd_dinov2_60_full"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny network, and no other place to find weights in."""
    monkeypatch.delenv(DINOV2.variable, raising=False)
    monkeypatch.setattr(dinov2_metrics, "load_dinov2", partial(load_dinov2, size=TINY))


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    torch.save(state_of("resized"), tmp_path / "tiny.pth")
    return tmp_path / "tiny.pth"


def test_values_follow_from_the_features(weights_file: Path, tmp_path: Path) -> None:
    real, fake = recorded_images("a"), recorded_images("b")[:60]
    options = {"batch_size": 25, "cache_folder": tmp_path / "cache", "weights": Source({"dinov2": weights_file})}
    fd, kd = evaluate(NAMES, FixedImages(real), GeneratedImages(fake), **options)
    network = load_dinov2(weights_file, TINY)
    with full_precision():
        x, y = network(real).double(), network(fake).double()
    assert fd.value == pytest.approx(frechet_distance(x.mean(0), x.T.cov(), y.mean(0), y.T.cov()), rel=1e-5)
    assert (kd.value, kd.details["std"]) == pytest.approx(kernel_distance(y, x), rel=1e-4)
    assert fd.settings == {"ddof": 1} and kd.settings["subset_size"] == 60
    for result in (fd, kd):
        assert result.detector == "dinov2_vitl14" and result.resize == "bicubic_antialias_16"
        assert result.detector_digest == file_sha256(weights_file) and not result.comparable_to_published
