"""The perceptual path length: its detector, the trimmed mean, its names and where it gets its weights from."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import vgg_golden
from image_sets import FixedImages
from torch import Tensor

from metrics.detectors import BuildContext, Detector, full_precision
from metrics.families.path_length import DETECTORS, FAMILIES, build_path_length, trimmed
from metrics.images import EPSILON, no_progress
from metrics.weights.published import LPIPS, VGG16, MissingWeights, Source

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Files with the weights that values were recorded with; of VGG16, the layers that are not used are all alike."""
    folder = tmp_path_factory.mktemp("weights")
    convolutions = {f"features.{name}": value for name, value in vgg_golden.random_convolutions().state_dict().items()}
    torch.save({**vgg_golden.small_state(), **convolutions}, folder / "vgg16.pth")
    lpips = vgg_golden.save_channel_weights(folder / "lpips.pth")
    return Source(paths={VGG16.key: folder / "vgg16.pth", LPIPS.key: lpips}, offline=True, cache_folder=folder)


@pytest.fixture(scope="module")
def detector(source: Source) -> Detector:
    real = FixedImages(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    return build_path_length(BuildContext(real, CPU, source, no_progress))


def features(detector: Detector, pairs: Tensor) -> Tensor:
    with full_precision():
        return detector.network(pairs)


def recorded_pairs() -> Tensor:
    a = vgg_golden.waves("a")
    return torch.stack([a, vgg_golden.neighbours_of(a)], dim=1)


def test_the_detector_gives_recorded_distances_over_the_squared_step(detector: Detector) -> None:
    pairs = recorded_pairs()
    found = features(detector, pairs)
    assert (found.dtype, found.shape, detector.dim, EPSILON) == (torch.float32, (6, 1), 1, 1e-4)
    np.testing.assert_allclose(found[:, 0] * 1e-8, vgg_golden.recorded()["lpips_aeps"], rtol=1e-5)
    np.testing.assert_allclose(features(detector, pairs.flip(1)), found, rtol=1e-6)


def test_large_images_are_averaged_down_by_a_whole_factor(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metrics.families.path_length._LARGEST_PX", 32)
    small = recorded_pairs()[:2, :, :, :32, :32]
    large = small.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
    np.testing.assert_allclose(features(detector, large), features(detector, small), rtol=1e-6)


def test_the_extreme_pairs_are_left_out() -> None:
    values = torch.from_numpy(np.random.RandomState(0).permutation(1000).astype(np.float32))
    # 999 steps between 0 and 999: the 1st percentile is at 9.99, the 99th at 989.01
    assert trimmed(values) == pytest.approx((np.mean(np.arange(9, 991)), np.std(np.arange(9, 991))), rel=1e-12)
    outliers = values.clone()
    outliers[values == 999] = 1e9
    outliers[values == 0] = -1e9
    assert trimmed(outliers) == trimmed(values)
    skewed = values.square()  # tells the ends apart
    expected = np.mean(np.square(np.arange(9.0, 991.0)))
    assert trimmed(skewed)[0] == pytest.approx(expected, rel=1e-7)
    for first, last in ((10, 991), (9, 990), (0, 1000), (10, 990)):
        assert trimmed(skewed)[0] != pytest.approx(np.mean(np.square(np.arange(float(first), float(last)))), rel=1e-5)
    assert trimmed(torch.tensor([3.0, 3.0])) == (3.0, 0.0)
    assert trimmed(torch.tensor([1.0, 2.0]))[0] == 1.5


def test_small_images_are_refused() -> None:
    check = FAMILIES[0].metric.check
    check(FixedImages(torch.zeros(1, 1, 16, 16, dtype=torch.uint8)))
    with pytest.raises(ValueError, match=r"images of 32x8 px are too small .* at least 16x16 px"):
        check(FixedImages(torch.zeros(1, 3, 8, 32, dtype=torch.uint8)))


def test_both_files_are_needed_and_recorded(detector: Detector, source: Source, tmp_path: Path) -> None:
    hashes = [hashlib.sha256(source.paths[key].read_bytes()).hexdigest() for key in (VGG16.key, LPIPS.key)]
    assert detector.digest == "+".join(hashes)
    assert not detector.is_published
    DETECTORS["vgg16_lpips"].prepare(source)
    for key, what in ((VGG16.key, "LPIPS channel weights"), (LPIPS.key, "VGG16 weights")):
        only = Source(paths={key: source.paths[key]}, offline=True, cache_folder=tmp_path)
        with pytest.raises(MissingWeights, match=f"the {what}"):
            DETECTORS["vgg16_lpips"].prepare(only)
