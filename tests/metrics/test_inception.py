"""The Inception network against recordings of the peers, and what its details are worth."""

from collections.abc import Callable
from typing import Any

import inception_golden
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from inception_golden import Evaluation, logits_of, recorded_images
from torch import Tensor

from metrics.detectors import full_precision
from metrics.networks import inception
from metrics.networks.inception import InceptionV3, resize_as_tensorflow

Recorded = dict[str, np.ndarray]


def deviation(found: Tensor, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    return (found.double() - torch.from_numpy(expected).double()).abs().max().item() / np.abs(expected).max()


def resized(recorded: Recorded, resize: Callable[[Tensor], Tensor]) -> float:
    """The largest difference from the recorded pixels at 299x299, every 23rd of both axes, in grey levels."""
    found = resize(recorded_images("b")[:2].float())[:, :, ::23, ::23]
    return (found - torch.from_numpy(recorded["resize_b2_tf299_every23"])).abs().max().item()


def test_random_weights_are_the_recorded_ones(random_state: dict[str, Tensor]) -> None:
    assert len(random_state) == 566
    assert inception_golden.digest(random_state) == inception_golden.DIGEST


def test_resize_is_tensorflows(recorded: Recorded) -> None:
    assert resized(recorded, lambda x: resize_as_tensorflow(x, 299)) < 1e-3
    for antialias in (False, True):  # PyTorch's grid is shifted by half a pixel
        assert resized(recorded, lambda x, a=antialias: F.interpolate(x, (299, 299), mode="bilinear", antialias=a)) > 1
    assert resized(recorded, lambda x: F.interpolate(x, (299, 299), mode="bilinear", align_corners=True)) > 1


@pytest.mark.parametrize(("height", "width"), [(299, 299), (598, 299), (7, 450), (1, 1)])
def test_resize_by_the_definition(height: int, width: int) -> None:
    x = torch.rand([1, 2, height, width], generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 255
    found = resize_as_tensorflow(x, 299)
    assert found.shape == (1, 2, 299, 299)
    for i, j in [(0, 0), (1, 298), (150, 77), (298, 298)]:
        y, x0 = i * height / 299, j * width / 299
        rows, columns = [int(y), min(int(y) + 1, height - 1)], [int(x0), min(int(x0) + 1, width - 1)]
        corners = x[0][:, rows][:, :, columns]
        weights = torch.outer(torch.tensor([1 - y % 1, y % 1]), torch.tensor([1 - x0 % 1, x0 % 1])).double()
        torch.testing.assert_close(found[0, :, i, j], (corners * weights).sum(dim=(1, 2)), rtol=1e-6, atol=1e-6)
    if (height, width) == (299, 299):
        assert torch.equal(found, x)


def test_features_are_the_recorded_ones(evaluation: Evaluation, recorded: Recorded) -> None:
    for which, rows in (("a", evaluation.real_rows), ("b", evaluation.fake_rows)):
        assert deviation(rows[:8], recorded[f"feat_{which}_head"]) < 1e-5
        np.testing.assert_allclose(rows.double().sum(dim=1).numpy(), recorded[f"feat_{which}_rowsum"], rtol=1e-5)
        np.testing.assert_allclose(rows.double().norm(dim=1).numpy(), recorded[f"feat_{which}_norm"], rtol=1e-5)
        assert deviation(rows.double().mean(dim=0), recorded[f"feat_{which}_mean"]) < 1e-5
    assert deviation(evaluation.real_rows[:2], recorded["feat_a_head_float64net"]) < 1e-5


def test_logits_have_no_bias(evaluation: Evaluation, recorded: Recorded, random_state: dict[str, Tensor]) -> None:
    logits = logits_of(evaluation)
    assert deviation(logits[:4], recorded["logits_unbiased_b_head"]) < 1e-5
    assert deviation(logits[:4], recorded["logits_b_head"]) > 1e-2
    assert deviation(logits[:4] + random_state["fc.bias"], recorded["logits_b_head"]) < 1e-5


def test_a_grey_image_counts_as_rgb(network: InceptionV3) -> None:
    grey = recorded_images("a")[:1, :1]
    with full_precision():
        assert torch.equal(network(grey), network(grey.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("mistake", ["half a pixel", "padding counts", "average in the last block", "symmetric range"])
def test_mistakes_of_other_programs_show(mistake, network, recorded, monkeypatch):
    """Each recomputes one image with one detail as it often is; the tolerance of the features would catch it."""
    padded: Callable[[Tensor], Tensor] = lambda x: F.avg_pool2d(x, 3, stride=1, padding=1)  # noqa: E731
    swaps: dict[Any, Callable[[Tensor], Tensor]] = {
        "padding counts": {inception._average: padded},
        "average in the last block": {inception._maximum: inception._average},
    }.get(mistake, {})
    for block in network.children():
        if hasattr(block, "pool"):
            monkeypatch.setattr(block, "pool", swaps.get(block.pool, block.pool), raising=False)
    images = recorded_images("b")[:1]
    if mistake == "half a pixel":
        monkeypatch.setattr(
            inception, "resize_as_tensorflow", lambda x, px: F.interpolate(x, (px, px), mode="bilinear")
        )
    if mistake == "symmetric range":
        monkeypatch.setattr(
            inception, "resize_as_tensorflow", lambda x, px: resize_as_tensorflow(x, px) * (128 / 127.5)
        )
    with full_precision():
        assert deviation(network(images), recorded["feat_b_head"][:1]) > 1e-4
