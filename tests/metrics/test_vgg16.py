"""VGG16 against recordings of the peers, and what its details are worth."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import vgg_golden
from golden_data import relative_error
from inception_golden import recorded_images
from torch import Tensor

from metrics.detectors import full_precision
from metrics.networks import vgg16
from metrics.networks.vgg16 import VGG16, activations, normalise

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
    assert vgg_golden.digest(network.state_dict()) == vgg_golden.DIGEST


def test_features_are_the_recorded_ones(network: VGG16) -> None:
    with full_precision():
        features = network(recorded_rows())
    assert (features.dtype, features.shape) == (torch.float32, (4, vgg16.FEATURES))
    assert relative_error(features[:, ::16], recorded("fc2_relu_a4_b4")) < 1e-5
    np.testing.assert_allclose(features.double().norm(dim=1).numpy(), recorded("fc2_relu_norm"), rtol=1e-5)
    assert (features >= 0).all() and not torch.allclose(features[:2], features[2:])


def test_images_are_normalised_as_imagenets() -> None:
    images = torch.tensor([0.0, 255.0, 127.5]).view(3, 1, 1, 1)
    found = normalise(images)[:, :, 0, 0]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(found, (torch.tensor([[0.0], [1.0], [0.5]]) - mean) / std)
    assert torch.equal(normalise(images), normalise(images.expand(-1, 3, -1, -1)))


def test_activations_are_those_before_the_poolings() -> None:
    convolutions = vgg_golden.random_convolutions()
    maps = list(activations(convolutions, torch.zeros(1, 3, 48, 32)))
    sizes = [(64, 48, 32), (128, 24, 16), (256, 12, 8), (512, 6, 4), (512, 3, 2)]
    assert [tuple(x.shape[1:]) for x in maps] == sizes
    assert all((x >= 0).all() for x in maps)
    torch.testing.assert_close(F.max_pool2d(maps[-1], 2), convolutions(torch.zeros(1, 3, 48, 32)))
    assert len(list(activations(convolutions, torch.zeros(1, 3, 16, 16)))) == 5
