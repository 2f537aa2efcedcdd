"""Well-known traps, put into the code one by one: the test that guards against each must fail, and pass without it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import test_frechet
import test_inception
import test_inception_metrics
import test_inception_score
import test_kernel
import test_neighbour_metrics
import test_neighbours
import test_path_length
import torch
import torch.nn.functional as F
from inception_golden import Evaluation, recorded_images
from torch import Tensor

from metrics import registry
from metrics.detectors import full_precision
from metrics.distances import frechet, inception_score, kernel, neighbours
from metrics.distances.frechet import FeatureMoments
from metrics.families import inception as inception_metrics
from metrics.families import neighbours as neighbour_metrics
from metrics.features import FeatureRecord, Keep
from metrics.metric import Inputs
from metrics.networks import inception
from metrics.networks.inception import InceptionV3

pytestmark = pytest.mark.filterwarnings("ignore:a Frechet distance")

_SEEN_AGAIN = 2  # images that the network sees with a trap in it


@dataclass(frozen=True)
class Known:
    """What the guards need: recorded values, and one evaluation without traps."""

    evaluation: Evaluation
    network: InceptionV3
    state: dict[str, Tensor]
    recorded: dict[str, np.ndarray]
    peers: dict[str, float]

    def seen_again(self) -> Evaluation:
        """The evaluation with the first images described anew."""
        with full_precision():
            rows = self.network(recorded_images("a")[:_SEEN_AGAIN])
        return replace(self.evaluation, real_rows=torch.cat([rows, self.evaluation.real_rows[_SEEN_AGAIN:]]))

    def measured_again(self, name: str) -> Evaluation:
        """The evaluation with one metric computed anew from the features."""
        real, fake = (FeatureRecord(2048, 64, Keep.MOMENTS | Keep.ROWS) for _ in range(2))
        real.append(self.evaluation.real_rows, None, 0)
        fake.append(self.evaluation.fake_rows, None, 0)
        inputs = Inputs(self.evaluation.detector, torch.device("cpu"), fake, real)
        found = registry.get(name).measure(inputs)
        result = replace(
            self.evaluation.results[name], value=found.value, details=found.details, settings=found.settings
        )
        return replace(self.evaluation, results={**self.evaluation.results, name: result})


@pytest.fixture
def known(
    evaluation: Evaluation,
    network: InceptionV3,
    random_state: dict[str, Tensor],
    recorded: dict[str, np.ndarray],
    peers: dict[str, float],
) -> Known:
    return Known(evaluation, network, random_state, recorded, peers)


Trap = Callable[[pytest.MonkeyPatch], None]
Guard = Callable[[Known], None]


GUARDS: dict[str, Guard] = {
    "resized image": lambda known: test_inception.test_resize_is_tensorflows(known.recorded),
    "resized by definition": lambda known: test_inception.test_resize_by_the_definition(598, 299),
    "features": lambda known: test_inception.test_features_are_the_recorded_ones(known.seen_again(), known.recorded),
    "class scores": lambda known: test_inception.test_logits_have_no_bias(
        known.evaluation, known.recorded, known.state
    ),
    "IS": lambda known: test_inception_metrics.test_inception_score_is_the_peers_without_bias(
        known.measured_again("is64"), known.peers, known.state
    ),
    "IS of given scores": lambda known: test_inception_score.test_recorded_values(10),
    "IS splits": lambda known: test_inception_score.test_splits_are_contiguous_and_nearly_equal(),
    "FID": lambda known: test_inception_metrics.test_fid_is_the_peers(known.measured_again("fid64_full"), known.peers),
    "distance of given features": lambda known: test_frechet.test_recorded_values("full", 1e-8, 0),
    "moments": lambda known: test_frechet.test_moments_equal_numpy_whatever_the_chunks(),
    "KID": lambda known: test_inception_metrics.test_kid_is_the_peers(known.evaluation, known.peers),
    "KID of given features": lambda known: test_kernel.test_one_subset_of_all("full", 240),
    "KID of one distribution": lambda known: test_kernel.test_unbiased_for_one_distribution(),
    "KID subsets": lambda known: test_kernel.test_subsets("full"),
    "counts": lambda known: test_neighbours.test_counts_are_those_of_other_programs("full", 3),
    "edges": lambda known: test_neighbours.test_the_edge_belongs_to_a_ball(),
    "neighbour metrics": lambda known: test_neighbour_metrics.test_values_are_the_recorded_ones(),
    "neighbour metrics of images": lambda known: test_neighbour_metrics.test_values_of_images_are_the_peers(
        known.evaluation, known.peers
    ),
    "path length": lambda known: test_path_length.test_the_extreme_pairs_are_left_out(),
}


def resize_by_pytorch(antialias: bool) -> Trap:
    """Both axes in turn, on a grid that is shifted by half a pixel."""

    def resize_axis(x: Tensor, axis: int, size_px: int) -> Tensor:
        size = [size_px if index == axis else x.shape[index] for index in (2, 3)]
        return F.interpolate(x, size, mode="bilinear", antialias=antialias)

    return lambda patch: patch.setattr(inception, "_resize_axis", resize_axis)


def smooth_first(patch: pytest.MonkeyPatch) -> None:
    """Antialias on TensorFlow's grid, which shows where images shrink."""
    resize_axis = inception._resize_axis

    def smooth(x: Tensor, axis: int, size_px: int) -> Tensor:
        factor = max(x.shape[axis] // size_px, 1)
        return resize_axis(x.unfold(axis, factor, factor).mean(dim=-1), axis, size_px)

    patch.setattr(inception, "_resize_axis", smooth)


def scale_symmetrically(patch: pytest.MonkeyPatch) -> None:
    """0..255 to -1..1, where (x - 128) / 128 is meant."""
    resize = inception.resize_as_tensorflow
    patch.setattr(inception, "resize_as_tensorflow", lambda x, px: resize(x, px) * (128 / 127.5))


def add_bias(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(InceptionV3, "logits", lambda network, features: network.fc(features))


in_order = inception_score.inception_score


def shuffled(logits: Tensor, num_splits: int = 10) -> tuple[float, float]:
    """The Inception score of images in another order."""
    order = np.random.RandomState(2020).permutation(len(logits))
    return in_order(logits[torch.from_numpy(order)], num_splits)


def divide_by_one_less(patch: pytest.MonkeyPatch) -> None:
    covariance = FeatureMoments.covariance
    patch.setattr(FeatureMoments, "covariance", lambda moments, ddof: covariance(moments, 1))


def sum_in_float32(patch: pytest.MonkeyPatch) -> None:
    def flush(moments: FeatureMoments) -> None:
        if moments._pending:
            rows = torch.cat(moments._pending).float()
            moments._total = (moments._total.float() + rows.sum(dim=0)).double()
            moments._outer = (moments._outer.float() + rows.T @ rows).double()
            moments._pending, moments._num_pending = [], 0

    patch.setattr(FeatureMoments, "_flush", flush)


def round_covariances(patch: pytest.MonkeyPatch) -> None:
    distance = frechet.frechet_distance
    patch.setattr(frechet, "frechet_distance", lambda *moments: distance(*(x.float() for x in moments)))


def take_neighbour(step: int) -> Trap:
    """The k-th neighbour with a row among its own neighbours (-1), or one too far (1)."""

    def put_in(patch: pytest.MonkeyPatch) -> None:
        radii = neighbours._squared_radii
        patch.setattr(neighbours, "_squared_radii", lambda points, k, which: radii(points, k + step, which))

    return put_in


def swap_precision_and_recall(patch: pytest.MonkeyPatch) -> None:
    def swapped(real: Tensor, fake: Tensor, k: int, device: torch.device) -> tuple[float, float]:
        precision, recall = found(real, fake, k, device)
        return recall, precision

    found = neighbours.precision_recall
    for module in (neighbours, test_neighbours):
        patch.setattr(module, "precision_recall", swapped)


def swap_real_and_generated(patch: pytest.MonkeyPatch) -> None:
    def swapped(real: Tensor, fake: Tensor, k: int, device: torch.device) -> tuple[float, float]:
        return found(fake, real, k, device)

    found = neighbours.density_coverage
    for module in (neighbours, test_neighbours):
        patch.setattr(module, "density_coverage", swapped)


def leave_edges_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(neighbours, "_ROUNDING", -1e-13)


def draw_real_subsets_first(patch: pytest.MonkeyPatch) -> None:
    """Of a symmetric distance the order of arguments is that of drawing alone."""

    def swapped(fake: Tensor, real: Tensor, **settings: int) -> tuple[float, float]:
        return kernel.kernel_distance(real, fake, **settings)

    for module in (test_kernel, test_inception_metrics):
        patch.setattr(module, "kernel_distance", swapped)


def set_to(module: object, name: str, value: object) -> Trap:
    return lambda patch: patch.setattr(module, name, value)


def zero_diagonal(x: Tensor) -> Tensor:
    """What a biased estimate takes away of the kernel's diagonal."""
    return torch.zeros(len(x), dtype=x.dtype)


def linear_percentiles(patch: pytest.MonkeyPatch) -> None:
    percentile = np.percentile
    patch.setattr(np, "percentile", lambda values, share, method: percentile(values, share))


TRAPS: dict[str, tuple[Trap, str]] = {
    "half a pixel, resized image": (resize_by_pytorch(antialias=False), "resized image"),
    "half a pixel, resized by definition": (resize_by_pytorch(antialias=False), "resized by definition"),
    "half a pixel, features": (resize_by_pytorch(antialias=False), "features"),
    "antialias, resized image": (resize_by_pytorch(antialias=True), "resized image"),
    "antialias, features": (resize_by_pytorch(antialias=True), "features"),
    "antialias on the right grid": (smooth_first, "resized by definition"),
    "scaled to -1..1": (scale_symmetrically, "features"),
    "bias, class scores": (add_bias, "class scores"),
    "bias, IS": (add_bias, "IS"),
    "shuffled IS, given scores": (set_to(test_inception_score, "inception_score", shuffled), "IS of given scores"),
    "shuffled IS, splits": (set_to(test_inception_score, "inception_score", shuffled), "IS splits"),
    "shuffled IS, images": (set_to(inception_score, "inception_score", shuffled), "IS"),
    "ddof, FID": (set_to(inception_metrics, "FID_DDOF", 1), "FID"),
    "ddof, given features": (divide_by_one_less, "distance of given features"),
    "float32 moments": (sum_in_float32, "moments"),
    "float32 moments, distance": (sum_in_float32, "distance of given features"),
    "float32 covariances": (round_covariances, "distance of given features"),
    "k - 1, given features": (take_neighbour(-1), "counts"),
    "k - 1, images": (take_neighbour(-1), "neighbour metrics of images"),
    "k + 1, given features": (take_neighbour(1), "counts"),
    "k + 1, images": (take_neighbour(1), "neighbour metrics of images"),
    "k + 1, setting": (set_to(neighbour_metrics, "PR_NEIGHBOUR", 4), "neighbour metrics"),
    "swapped precision and recall, given features": (swap_precision_and_recall, "counts"),
    "swapped precision and recall, metric": (swap_precision_and_recall, "neighbour metrics"),
    "swapped precision and recall, images": (swap_precision_and_recall, "neighbour metrics of images"),
    "density and coverage of the other set": (swap_real_and_generated, "counts"),
    "balls without their edge": (leave_edges_out, "edges"),
    "KID biased, given features": (set_to(kernel, "_kernel_diagonal", zero_diagonal), "KID of given features"),
    "KID biased, one distribution": (set_to(kernel, "_kernel_diagonal", zero_diagonal), "KID of one distribution"),
    "KID biased, images": (set_to(kernel, "_kernel_diagonal", zero_diagonal), "KID"),
    "KID quadratic": (set_to(kernel, "DEGREE", 2), "KID of given features"),
    "KID subsets real first": (draw_real_subsets_first, "KID subsets"),
    "KID subsets real first, images": (draw_real_subsets_first, "KID"),
    "path length percentiles between pairs": (linear_percentiles, "path length"),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_is_caught(trap: str, known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in, guard = TRAPS[trap]
    GUARDS[guard](known)
    put_in(monkeypatch)
    with pytest.raises(AssertionError):
        GUARDS[guard](known)
