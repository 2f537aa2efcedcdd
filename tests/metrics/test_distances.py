"""Frechet and kernel distance and the Inception score against recorded values of other programs and in closed form."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
from golden_data import DATA, arrays
from inception_golden import recorded_features

from metrics.distances.frechet import FeatureMoments, frechet_distance, moments_distance
from metrics.distances.inception_score import inception_score
from metrics.distances.kernel import kernel_distance, mean_discrepancy


def moments_of(features: np.ndarray | torch.Tensor, chunk: int = 37) -> FeatureMoments:
    rows = torch.as_tensor(features)
    moments = FeatureMoments.of_none(rows.shape[1])
    for part in rows.split(chunk):
        moments.append(part)
    return moments


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize(("case", "tolerance"), [("full", 1e-8), ("lowrank", 1e-6)])
@pytest.mark.filterwarnings("ignore:a Frechet distance")
def test_recorded_frechet_distances(case: str, tolerance: float, ddof: int) -> None:
    *features, values = recorded_features(case)
    real, fake = map(moments_of, features)
    for moments in ((real, fake), (fake, real)):
        expected = pytest.approx(values[f"{case}.exact.fid_ddof{ddof}"], rel=tolerance)
        assert moments_distance(*moments, ddof) == expected


def test_gaussians_with_a_common_basis() -> None:
    basis = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    std_a = torch.tensor([1.0, 2.0, 0.5, 3.0, 0.0], dtype=torch.float64)
    std_b = torch.tensor([2.0, 2.0, 0.1, 0.0, 1.0], dtype=torch.float64)
    mean_a, mean_b = torch.zeros(5), torch.tensor([3.0, 0.0, 0.0, 4.0, 0.0])
    cov_a, cov_b = (basis * std_a**2) @ basis.T, (basis * std_b**2) @ basis.T
    expected = 25 + (std_a - std_b).square().sum().item()
    assert frechet_distance(mean_a, cov_a, mean_b, cov_b) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("dim", [1, 3, 40, 300])
def test_distance_to_itself_is_zero_and_never_below(dim: int) -> None:
    x = torch.randn(3 * dim, dim, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    mean, cov = torch.ones(dim), x.T @ x / len(x)
    assert 0 <= frechet_distance(mean, cov, mean, cov) < 1e-9


def test_moments_equal_numpy_whatever_the_chunks() -> None:
    rows = np.random.RandomState(0).randn(101, 7).astype(np.float32) + 100
    exact = rows.astype(np.float64)
    for chunk in (1, 10, 101):
        moments = moments_of(rows, chunk)
        np.testing.assert_allclose(moments.mean.numpy(), exact.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(moments.covariance(1).numpy(), np.cov(exact.T), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(moments.covariance(0).numpy(), np.cov(exact.T, ddof=0), rtol=1e-9, atol=1e-9)


def test_few_rows_warn() -> None:
    rows = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="8 features from only 8 images"):
        moments_distance(moments_of(rows), moments_of(rows[:8]), ddof=1)
    with warnings.catch_warnings(action="error"):
        moments_distance(moments_of(rows), moments_of(rows[:9]), ddof=1)


@pytest.mark.parametrize(("case", "count"), [("full", 240), ("lowrank", 36)])
def test_recorded_kernel_distances_of_one_subset(case: str, count: int) -> None:
    real, fake, values = recorded_features(case)
    expected = values[f"{case}.torch_fidelity.kid_first{count}_fullset_f64"]
    assert mean_discrepancy(fake[:count], real[:count]) == pytest.approx(expected, rel=1e-9)
    assert kernel_distance(fake[:count], real[:count], num_subsets=1)[0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("case", ["full", "lowrank"])
def test_recorded_kernel_distances_of_subsets(case: str) -> None:
    real, fake, values = recorded_features(case)
    mean, std = kernel_distance(fake, real, num_subsets=10, max_subset=30)
    assert mean == pytest.approx(values[f"{case}.torch_fidelity.kid_10x30_mean_f64"], rel=1e-6)
    assert std == pytest.approx(values[f"{case}.torch_fidelity.kid_10x30_std_f64"], rel=1e-6)
    other_order = kernel_distance(real, fake, num_subsets=10, max_subset=30)[0]
    other_seed = kernel_distance(fake, real, num_subsets=10, max_subset=30, seed=0)[0]
    assert other_order != pytest.approx(mean, rel=1e-6)
    assert other_seed != pytest.approx(mean, rel=1e-6)


def test_kernel_distance_by_its_definition_for_sets_of_different_size() -> None:
    x, y = np.random.RandomState(0).randn(5, 3), np.random.RandomState(1).randn(4, 3)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 3 + 1) ** 3)

    within_x = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    within_y = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    expected = within_x + within_y - 2 * np.mean([k(a, b) for a in x for b in y])
    found = mean_discrepancy(torch.from_numpy(x), torch.from_numpy(y))
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("num_splits", [1, 10])
def test_recorded_inception_scores(num_splits: int) -> None:
    values = json.loads((DATA / "metrics/features_v1.json").read_text())
    logits = torch.from_numpy(arrays("metrics/features_v1")["logits"])
    mean, std = inception_score(logits, num_splits)
    assert mean - 1 == pytest.approx(values[f"logits.torch_fidelity.is{num_splits}_mean_noshuffle"] - 1, rel=1e-9)
    assert std == pytest.approx(values[f"logits.torch_fidelity.is{num_splits}_std_noshuffle"], rel=1e-9, abs=1e-15)
    if num_splits == 10:
        assert mean != pytest.approx(values["logits.torch_fidelity.is10_mean_shuffle2020"], rel=1e-3)


def test_extreme_inception_scores() -> None:
    sure = torch.eye(7).repeat(10, 1) * 2000  # of every class equally often; other probabilities are zero in float64
    assert inception_score(sure, num_splits=10) == pytest.approx((7.0, 0.0))
    one_opinion = torch.tensor([0.3, 2.0, -1.0]).expand(20, 3)
    assert inception_score(one_opinion, num_splits=2) == pytest.approx((1.0, 0.0))


def test_splits_of_the_inception_score_are_contiguous_and_nearly_equal() -> None:
    logits = torch.randn(23, 5, generator=torch.Generator().manual_seed(0))
    parts = [inception_score(part, 1)[0] for part in (logits[:5], logits[5:11], logits[11:17], logits[17:])]
    mean, std = inception_score(logits, num_splits=4)
    assert mean == pytest.approx(sum(parts) / 4)
    assert std == pytest.approx(math.sqrt(sum((part - mean) ** 2 for part in parts) / 4))
