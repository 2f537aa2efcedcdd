"""DINOv2 against recordings of the published program with small random weights; reading its weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from dinov2_tiny import SIZES, images, state_of
from golden_data import arrays, relative_error
from PIL import Image

from metrics.networks.dinov2 import VIT_L14, Dinov2, normalise, read_dinov2


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
