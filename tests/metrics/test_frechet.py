"""The Frechet distance against closed forms and against recorded values of an independent computation."""

import warnings

import numpy as np
import pytest
import torch
from inception_golden import recorded_features

from metrics.distances.frechet import FeatureMoments, frechet_distance, moments_distance


def moments_of(features: np.ndarray | torch.Tensor, chunk: int = 37) -> FeatureMoments:
    rows = torch.as_tensor(features)
    moments = FeatureMoments.of_none(rows.shape[1])
    for part in rows.split(chunk):
        moments.append(part)
    return moments


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize(("case", "tolerance"), [("full", 1e-8), ("lowrank", 1e-6)])
@pytest.mark.filterwarnings("ignore:a Frechet distance")
def test_recorded_values(case: str, tolerance: float, ddof: int) -> None:
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
