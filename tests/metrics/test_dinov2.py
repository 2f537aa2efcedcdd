"""DINOv2 against recordings of the published program with a tiny network; reading its weights; distances of its features."""

import math
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_data import arrays, relative_error
from image_sets import FixedImages, GeneratedImages
from inception_golden import recorded_images
from PIL import Image
from torch import Tensor

from dnnlib.files import file_sha256
from metrics.detectors import full_precision
from metrics.distances.frechet import frechet_distance
from metrics.distances.kernel import kernel_distance
from metrics.families import dinov2 as dinov2_metrics
from metrics.networks.dinov2 import VIT_L14, Dinov2, TransformerSize, load_dinov2, normalise, read_dinov2
from metrics.registry import evaluate
from metrics.weights.published import DINOV2, Source

SIZES = {
    "native": TransformerSize(width=32, depth=2, heads=4, patch_px=4, trained_grid=4, input_px=16),
    "resized": TransformerSize(width=32, depth=2, heads=4, patch_px=4, trained_grid=9, input_px=16),
}


def draw(name: str, shape: tuple[int, ...]) -> Tensor:
    """The recorded kind of weights: a tensor follows from its name and shape alone."""
    values = np.random.RandomState([0, zlib.crc32(name.encode())]).standard_normal(shape)
    if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "gamma")):
        values = 1 + 0.2 * values
    elif name.endswith("weight"):
        values /= math.sqrt(math.prod(shape[1:]))
    else:
        values *= 0.5 if name in ("cls_token", "pos_embed") else 0.1
    return torch.from_numpy(values.astype(np.float32))


def state_of(case: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        state = Dinov2(SIZES[case]).state_dict()
    return {name: draw(name, tuple(value.shape)) for name, value in state.items()}


def images() -> Tensor:
    """The images that were recorded, which shrink on their way into the network."""
    return torch.from_numpy(np.random.RandomState(7).randint(0, 256, (3, 3, 24, 20)).astype(np.uint8))


@pytest.fixture(params=["native", "resized"])
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def network(case: str) -> Dinov2:
    network = Dinov2(SIZES[case])
    network.load_state_dict(state_of(case))
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    return arrays("metrics/dinov2_tiny_v1")


def test_features_are_those_of_the_published_program(case, network, recorded):
    assert "facebookresearch/dinov2" in str(recorded["origin"])
    features = network(images())
    assert features.shape == (3, 32) and features.dtype == torch.float32
    assert relative_error(features, recorded[f"features_{case}"]) < 1e-5
    assert relative_error(network(images()[1:2]), recorded[f"features_{case}"][1:2]) < 1e-5


@pytest.mark.parametrize(("height", "width"), [(40, 100), (20, 16), (56, 56)])
def test_images_are_resized_as_pillow_does(height: int, width: int) -> None:
    image = np.random.RandomState(0).randint(0, 256, (3, height, width)).astype(np.uint8)
    found = normalise(torch.from_numpy(image)[None], 56)[0]
    for colour, mean, std in zip(range(3), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True):
        resized = Image.fromarray(image[colour].astype(np.float32)).resize((56, 56), Image.Resampling.BICUBIC)
        expected = (np.asarray(resized) / 255 - mean) / std
        np.testing.assert_allclose(found[colour].numpy(), expected, atol=1e-4)


def test_a_grey_image_counts_as_rgb(network: Dinov2) -> None:
    grey = images()[:, :1]
    assert torch.equal(network(grey), network(grey.expand(-1, 3, -1, -1)))


def test_the_large_network_has_the_published_tensors() -> None:
    with torch.device("meta"):
        state = Dinov2().state_dict()
    assert len(state) == 343 and sum(value.numel() for value in state.values()) == 304_368_640
    assert state["pos_embed"].shape == (1, 1370, 1024) and state["blocks.23.attn.qkv.weight"].shape == (3072, 1024)
    assert VIT_L14.grid == 16


def test_other_networks_are_refused(tmp_path: Path) -> None:
    state = state_of("native")
    for wrong, message in {
        "registers": ({**state, "register_tokens": torch.zeros(1, 4, 32)}, "also has 'register_tokens'"),
        "another grid": (state_of("resized"), r"pos_embed is torch.float32 \[1, 82, 32\], not torch.float32 \[1, 17, 32\]"),
        "another": ({"w": torch.zeros(2)}, r"is not DINOv2 with 2 blocks of width 32 and patches of 4 px: .* has 0"),
    }.values():  # fmt: skip
        torch.save(wrong, tmp_path / "weights.pth")
        with pytest.raises(ValueError, match=message):
            read_dinov2(tmp_path / "weights.pth", SIZES["native"])


def test_distances_follow_from_the_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the tiny network, in place of ViT-L/14."""
    monkeypatch.delenv(DINOV2.variable, raising=False)
    monkeypatch.setattr(dinov2_metrics, "load_dinov2", partial(load_dinov2, size=SIZES["resized"]))
    weights = tmp_path / "tiny.pth"
    torch.save(state_of("resized"), weights)
    real, fake = recorded_images("a"), recorded_images("b")[:60]
    names, source = ["fd_dinov2_60_full", "kd_dinov2_60_full"], Source({"dinov2": weights}, cache_folder=tmp_path)
    fd, kd = evaluate(names, FixedImages(real), GeneratedImages(fake), batch_size=25, weights=source)
    network = load_dinov2(weights, SIZES["resized"])
    with full_precision():
        x, y = network(real).double(), network(fake).double()
    assert fd.value == pytest.approx(frechet_distance(x.mean(0), x.T.cov(), y.mean(0), y.T.cov()), rel=1e-5)
    assert (kd.value, kd.details["std"]) == pytest.approx(kernel_distance(y, x), rel=1e-4)
    assert fd.settings == {"ddof": 1} and kd.settings["subset_size"] == 60
    for result in (fd, kd):
        assert result.detector == "dinov2_vitl14" and result.resize == "bicubic_antialias_16"
        assert result.detector_digest == file_sha256(weights) and not result.comparable_to_published
