"""VGG16 against recordings of the peers; its weights: torchvision's layout, archives of unknown names, what is refused."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import vgg_golden
from golden_data import relative_error
from inception_golden import digest, recorded_images, save_archive
from torch import Tensor

from metrics.detectors import full_precision
from metrics.networks import vgg16
from metrics.networks.vgg16 import VGG16, is_proven, load_vgg16, read_vgg16
from metrics.weights.published import Weights

CONVOLUTIONS = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]  # of torchvision's `features`
SEEN = [0, 3, 4, 7]  # of the eight recorded images, four of each set


@pytest.fixture(scope="module")
def network() -> Iterator[VGG16]:
    """The network with random weights, half a gigabyte, which is freed after this file."""
    network = vgg_golden.empty_network()
    network.load_state_dict(vgg_golden.random_state(), assign=True)
    yield network.requires_grad_(False)
    network.to("meta")


def recorded_rows() -> Tensor:
    return torch.cat([recorded_images(which)[:4] for which in ("a", "b")])[SEEN]


def recorded(name: str) -> np.ndarray:
    return vgg_golden.recorded()[name][SEEN]


def test_random_weights_are_the_recorded_ones(network: VGG16) -> None:
    assert digest(network.state_dict()) == vgg_golden.DIGEST


def test_features_are_the_recorded_ones(network: VGG16) -> None:
    with full_precision():
        features = network(recorded_rows())
    assert (features.dtype, features.shape) == (torch.float32, (4, vgg16.FEATURES))
    assert relative_error(features[:, ::16], recorded("fc2_relu_a4_b4")) < 1e-5
    np.testing.assert_allclose(features.double().norm(dim=1).numpy(), recorded("fc2_relu_norm"), rtol=1e-5)
    assert (features >= 0).all() and not torch.allclose(features[:2], features[2:])


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return vgg_golden.small_state()


def renamed(state: Mapping[str, Tensor], convolution: str, layer: str, leaf: str = "{}") -> dict[str, Tensor]:
    """The state with names as a program of its own may give them, numbered from 1, in the reverse order of names."""
    names = {f"features.{ours}": convolution.format(number) for number, ours in enumerate(CONVOLUTIONS, start=1)}
    names |= {f"classifier.{ours}": layer.format(number) for number, ours in ((1, 0), (2, 3), (3, 6))}
    tensors = {}
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        tensors[f"{names[module]}{leaf.format(kind)}"] = tensor
    return dict(sorted(tensors.items(), reverse=True))


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether both have the same names and, each tensor repeating one number, the same values."""
    return a.keys() == b.keys() and all(
        a[name].shape == b[name].shape and a[name].flatten()[[0, -1]].equal(b[name].flatten()[[0, -1]]) for name in a
    )


def test_torchvisions_layout(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "weights.pth", _use_new_zipfile_serialization=False)  # as torchvision's file
    network = load_vgg16(tmp_path / "weights.pth")
    assert same(network.state_dict(), state)
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("names", [("layers.conv{}", "layers.fc{}", ".{}"), ("conv_{}", "dense_{}", "_{}"), None])
def test_archives_are_mapped_by_shape_and_natural_order(names, state, tmp_path):
    tensors = renamed(state, *names) if names else state  # None = torchvision's own names
    lpips = {f"lpips{i}.weight": torch.rand(1, size, 1, 1) for i, size in enumerate((64, 128, 256, 512, 512))}
    path = save_archive(tmp_path / "weights.pt", {**tensors, **lpips})
    assert same(read_vgg16(path), state)
    assert not is_proven(Weights(path, "", is_published=True))  # not tried on the published archive


def test_archives_that_leave_a_doubt_are_refused(state, tmp_path, monkeypatch):
    path = save_archive(tmp_path / "weights.pt", {"weight": torch.zeros(2)})  # in place of many of half a gigabyte
    tensors = renamed(state, "conv{}", "fc{}", ".{}")
    exchanged = {**tensors, "conv1.weight": tensors["conv2.weight"], "conv2.weight": tensors["conv1.weight"]}
    for case, message in (
        ({k: v for k, v in tensors.items() if k != "conv5.bias"}, r"it lacks 'features\.10\.bias'"),
        ({k: v for k, v in tensors.items() if not k.startswith("fc3")}, r"it lacks 'classifier\.6\.bias'"),
        ({**tensors, "conv14.weight": torch.zeros(8, 8, 3, 3)}, r"it lacks 'classifier\.0\.bias'"),
        ({k.replace("conv13", "last_conv"): v for k, v in tensors.items()}, "their order is unknown"),
        (exchanged, r"features\.0\.weight is torch\.float32 \[64, 64, 3, 3\]"),
        ({}, "of 32 tensors expected it has 0"),
    ):
        monkeypatch.setattr(vgg16, "read_state", lambda path, case=case: case)
        with pytest.raises(ValueError, match=message):
            read_vgg16(path)
