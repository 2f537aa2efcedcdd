"""The usual mistakes, put into the code one by one: the test that guards against each passes without it and fails with it."""

from collections.abc import Callable

import numpy as np
import pytest
import test_frechet
import test_inception
import test_inception_score
import test_kernel
import test_neighbours
import torch
import torch.nn.functional as F
from torch import Tensor

from metrics.distances import kernel, neighbours
from metrics.distances.frechet import FeatureMoments
from metrics.networks import inception
from metrics.networks.inception import InceptionV3

pytestmark = pytest.mark.filterwarnings("ignore:a Frechet distance")

COVARIANCE, RADII = FeatureMoments.covariance, neighbours._squared_radii
SCORE, PRECISION_RECALL = test_inception_score.inception_score, neighbours.precision_recall


def resize_by_pytorch(antialias: bool) -> Callable[[Tensor, int, int], Tensor]:
    """On a grid that is shifted by half a pixel."""

    def resize_axis(x: Tensor, axis: int, size_px: int) -> Tensor:
        size = [size_px if index == axis else x.shape[index] for index in (2, 3)]
        return F.interpolate(x, size, mode="bilinear", antialias=antialias)

    return resize_axis


def shuffled(logits: Tensor, num_splits: int = 10) -> tuple[float, float]:
    """The Inception score of images in another order."""
    return SCORE(logits[torch.from_numpy(np.random.RandomState(2020).permutation(len(logits)))], num_splits)


TRAPS = {  # what is replaced, by what, and the guard
    "half a pixel": (inception, "_resize_axis", resize_by_pytorch(antialias=False), "resize"),
    "antialias": (inception, "_resize_axis", resize_by_pytorch(antialias=True), "resize"),
    "bias": (InceptionV3, "logits", lambda network, features: network.fc(features), "logits"),
    "ddof": (FeatureMoments, "covariance", lambda moments, ddof: COVARIANCE(moments, 1), "FID"),
    "k - 1": (neighbours, "_squared_radii", lambda points, k, which: RADII(points, k - 1, which), "counts"),
    "k + 1": (neighbours, "_squared_radii", lambda points, k, which: RADII(points, k + 1, which), "counts"),
    "swapped": (test_neighbours, "precision_recall", lambda *inputs: PRECISION_RECALL(*inputs)[::-1], "counts"),
    "edges left out": (neighbours, "_ROUNDING", -1e-13, "edges"),
    "shuffled IS": (test_inception_score, "inception_score", shuffled, "IS"),
    "biased KID": (kernel, "_kernel_diagonal", lambda x: torch.zeros(len(x), dtype=x.dtype), "KID"),
    "quadratic KID": (kernel, "DEGREE", 2, "KID"),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_is_caught(trap, evaluation, recorded, random_state, monkeypatch) -> None:
    guards = {
        "resize": lambda: test_inception.test_resize_is_tensorflows(recorded),
        "logits": lambda: test_inception.test_logits_have_no_bias(evaluation, recorded, random_state),
        "FID": lambda: test_frechet.test_recorded_values("full", 1e-8, 0),
        "counts": lambda: test_neighbours.test_counts_are_those_of_other_programs("full", 3),
        "edges": test_neighbours.test_the_edge_belongs_to_a_ball,
        "IS": lambda: test_inception_score.test_recorded_values(10),
        "KID": lambda: test_kernel.test_one_subset_of_all("full", 240),
    }
    owner, name, mistake, guard = TRAPS[trap]
    guards[guard]()
    monkeypatch.setattr(owner, name, mistake)
    with pytest.raises(AssertionError):
        guards[guard]()
