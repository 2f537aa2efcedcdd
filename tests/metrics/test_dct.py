"""The spectrum proxy: the transform and its bands, fixed values, sensible order of distortions."""

import numpy as np
import pytest
import scipy.fft
import torch
import torch.nn.functional as F
from image_sets import demo_images
from torch import Tensor

from metrics.detectors import full_precision
from metrics.families.dct_proxy import DETECTORS, METRICS
from metrics.features import FeatureRecord
from metrics.metric import Inputs, Measurement
from metrics.networks.dct import DctSpectrum, band_edges, band_matrix, dct_matrix

CPU = torch.device("cpu")
NAME = "proxy_fd_dct_v1"


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    return demo_images("score", 1000)


def describe(images: Tensor) -> Tensor:
    with full_precision():
        return torch.cat([DctSpectrum(CPU)(part) for part in images.split(250)])


def measure(real: Tensor, fake: Tensor) -> Measurement:
    records = []
    for images in (real, fake):
        records.append(FeatureRecord(DctSpectrum.dim, len(images)))
        records[-1].append(describe(images), None, 0)
    return METRICS[NAME].measure(Inputs(DctSpectrum(CPU), CPU, real=records[0], fake=records[1]))


def blur(images: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(images.float(), [1] * 4, mode="replicate"), 3, stride=1).to(torch.uint8)


def noisy(images: Tensor, std: float) -> Tensor:
    noise = std * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + noise).clamp(0, 255).to(torch.uint8)


def white(images: Tensor) -> Tensor:
    return torch.randint(0, 256, images.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [3, 8, 31])
def test_the_transform_is_scipys(size: int) -> None:
    expected = scipy.fft.dct(np.eye(size), type=2, norm="ortho", axis=0)
    np.testing.assert_allclose(dct_matrix(size).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("count", [4, 8])
def test_bands_cover_all_frequencies_and_none_is_empty(count: int) -> None:
    for size in [*range(8, 70), 100, 128, 256, 512, 1000, 1024, 2048]:
        edges = band_edges(size, count)
        assert edges[0] == 0 and edges[-1] == size and len(edges) == count + 1
        widths = np.diff(edges)
        assert widths.min() >= 1
        np.testing.assert_allclose((band_matrix(size, count) * torch.from_numpy(widths)[:, None]).sum(dim=0), 1)
    assert band_edges(8, 8) == list(range(9))
    assert band_edges(256, 8) == [0, 1, 4, 11, 22, 43, 80, 145, 256]


def test_features_by_the_definition() -> None:
    image = np.random.RandomState(0).randint(0, 256, (3, 16, 12)).astype(np.uint8)
    spectrum = scipy.fft.dctn(image.astype(np.float64), type=2, norm="ortho")
    expected: list[float] = []
    for colour, side in ((0, 8), (1, 4), (2, 4)):
        expected += list(spectrum[colour, :side, :side].ravel() / np.sqrt(3 * 16 * 12) / 64)
    for colour, side in ((0, 8), (1, 4), (2, 4)):
        rows, columns = band_edges(16, side), band_edges(12, side)
        for i in range(side):
            for j in range(side):
                band = spectrum[colour, rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
                if i + j > 0:
                    expected.append(0.1 * np.log(1 + np.square(band / 4).mean()))
    found = describe(torch.from_numpy(image)[None])
    assert found.shape == (1, 189) and found.dtype == torch.float32
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_features_are_the_recorded_ones() -> None:
    assert DctSpectrum(CPU).digest == "be5a6b83cbedab7c6b3958a7f44ff6e2590acc85ef575bd9332a809431ea162d"
    ramp = (torch.arange(3 * 32 * 32) * 37 % 256).to(torch.uint8).view(1, 3, 32, 32)
    features = describe(ramp).double()
    assert features.sum().item() == pytest.approx(33.32642, rel=1e-5)
    assert features.square().sum().item() == pytest.approx(21.80974, rel=1e-5)


def test_any_size_and_grey_as_equal_colours() -> None:
    for height, width in [(8, 8), (12, 9), (48, 48), (33, 64)]:
        grey = torch.randint(0, 256, [2, 1, height, width], dtype=torch.uint8)
        assert torch.equal(describe(grey), describe(grey.expand(-1, 3, -1, -1)))
        assert describe(grey).isfinite().all()
        assert describe(grey)[:, 64:96].abs().max() < 1e-5  # no colour


def test_flat_images_have_a_brightness_only() -> None:
    features = describe(torch.full([1, 3, 64, 64], 200, dtype=torch.uint8))[0]
    assert features[0].item() == pytest.approx(200 / 64, rel=1e-5)
    assert features[1:].abs().max() < 1e-4


def test_same_distribution_is_near_the_floor_and_white_noise_far(digits: tuple[Tensor, Tensor]) -> None:
    images, _ = digits
    same = measure(images[:500], images[500:])
    assert same.floor is not None and 0 < same.value < same.floor
    assert measure(images, white(images)).value > 50 * same.value
    assert abs(measure(images, images).value) < 1e-9
    assert same.settings == {"ddof": 1}


def test_distortions_are_ordered(digits: tuple[Tensor, Tensor]) -> None:
    images, classes = digits
    shown = [images, noisy(images, 10), blur(images), noisy(images, 60), white(images)]
    values = [measure(images, x).value for x in shown]
    assert values == sorted(values) and values[1] > 0.1
    missing, fewer = (measure(images, x).value for x in (images[classes < 3], images[::3][:300]))
    assert missing > 2 * fewer
    assert values[-1] > 20 * missing
    repeated = images[:50].repeat(20, 1, 1, 1)
    assert measure(images, repeated).value > 4 * fewer


def test_the_metric_is_a_proxy() -> None:
    metric = METRICS[NAME]
    assert not metric.comparable_to_published and metric.num_gen == 2000
    assert metric.detector in DETECTORS and "189 numbers" in metric.definition
