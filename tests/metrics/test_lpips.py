"""LPIPS against recorded values of its authors' program, and what its details are worth."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import vgg_golden
from golden_data import arrays
from inception_golden import recorded_images
from torch import Tensor

from metrics.detectors import full_precision
from metrics.networks.lpips import CHANNELS, Lpips, read_channel_weights


def distances(network: Lpips, images: Tensor, others: Tensor) -> np.ndarray:
    with full_precision():
        return network.distance(images, others).numpy()


def test_the_images_are_the_recorded_ones() -> None:
    assert torch.equal(vgg_golden.waves("a", 64, 32), recorded_images("a").float())
    near = vgg_golden.neighbours_of(vgg_golden.waves("a"))
    assert hashlib.sha256(near.numpy().tobytes()).hexdigest() == str(vgg_golden.recorded()["xeps_sha"])


def test_distances_are_the_recorded_ones() -> None:
    network, recorded = vgg_golden.random_lpips(), vgg_golden.recorded()
    a, b = vgg_golden.waves("a"), vgg_golden.waves("b")
    np.testing.assert_allclose(distances(network, a, b), recorded["lpips_ab"], rtol=1e-5)
    np.testing.assert_allclose(distances(network, a, vgg_golden.neighbours_of(a)), recorded["lpips_aeps"], rtol=1e-5)


def test_distances_are_those_of_embeddings() -> None:
    network = vgg_golden.random_lpips()
    a, b = vgg_golden.waves("a", 2), vgg_golden.waves("b", 2)
    with full_precision():
        x, y = (torch.cat(network.embed(images), dim=1).double() for images in (a, b))
    sizes = [64, 32, 16, 8, 4]
    assert x.shape == (2, sum(channels * size**2 for channels, size in zip(CHANNELS, sizes, strict=True)))
    np.testing.assert_allclose((x - y).square().sum(dim=1), vgg_golden.recorded()["lpips_ab"][:2], rtol=1e-5)
    np.testing.assert_allclose(distances(network, a, b), distances(network, b, a), rtol=1e-12)
    assert (distances(network, a, a) == 0).all()


def test_images_are_not_rounded_and_grey_ones_count_as_rgb() -> None:
    network, a = vgg_golden.random_lpips(), vgg_golden.waves("a", 1)
    near, recorded = vgg_golden.neighbours_of(vgg_golden.waves("a"))[:1], vgg_golden.recorded()["lpips_aeps"][:1]
    assert abs(distances(network, a, near.round()) / recorded - 1) > 1e-3
    grey, other = a[:, :1], near[:, :1]
    as_rgb = distances(network, grey.expand(-1, 3, -1, -1), other.expand(-1, 3, -1, -1))
    np.testing.assert_allclose(distances(network, grey, other), as_rgb, rtol=1e-12)


def test_channel_weights_are_read_from_the_published_layout(tmp_path: Path) -> None:
    found = read_channel_weights(vgg_golden.save_channel_weights(tmp_path / "vgg.pth"))
    assert [weights.shape[0] for weights in found] == list(CHANNELS)
    for weights, expected in zip(found, vgg_golden.channel_weights(), strict=True):
        assert torch.equal(weights, expected)
    assert "BSD-2-Clause" in str(arrays("metrics/lpips_v0.1_vgg")["origin"])


def test_other_channel_weights_are_refused(tmp_path: Path) -> None:
    path = vgg_golden.save_channel_weights(tmp_path / "vgg.pth")
    state = torch.load(path, weights_only=True)
    first, last = "lin0.model.1.weight", "lin4.model.1.weight"
    for case, message in (
        ({**state, first: torch.ones(1, 192, 1, 1)}, rf"{first} is torch.float32 \[1, 192, 1, 1\], not"),  # alex
        ({first: state[first]}, r"not the LPIPS weights for VGG16: of 5 tensors expected it has 1"),
        ({**state, last: -state[last]}, rf"{last} has negative values"),
    ):
        torch.save(case, path)
        with pytest.raises(ValueError, match=message):
            read_channel_weights(path)
