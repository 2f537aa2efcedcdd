"""VGG16 against recordings of the peers, and what its details are worth."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import vgg_golden
from golden_data import relative_error
from inception_golden import digest, recorded_images
from torch import Tensor

from metrics.detectors import full_precision
from metrics.networks import vgg16
from metrics.networks.vgg16 import VGG16

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
