"""The Frechet distance against closed forms and against recorded values of an independent computation."""

import json
import warnings

import numpy as np
import pytest
import torch
from golden_data import DATA

from metrics.distances.frechet import FeatureMoments, frechet_distance, moments_distance


def moments_of(features: np.ndarray | torch.Tensor, chunk: int = 37) -> FeatureMoments:
    rows = torch.as_tensor(features)
    moments = FeatureMoments(rows.shape[1])
    for part in rows.split(chunk):
        moments.append(part)
    return moments


def random_covariance(dim: int, seed: int) -> torch.Tensor:
    x = torch.randn(3 * dim, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.T @ x / len(x)


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize(("case", "tolerance"), [("full", 1e-8), ("lowrank", 1e-6)])
@pytest.mark.filterwarnings("ignore:a Frechet distance")
def test_recorded_values(case: str, tolerance: float, ddof: int) -> None:
    expected = json.loads((DATA / "metrics/features_v1.json").read_text())[f"{case}.exact.fid_ddof{ddof}"]
    with np.load(DATA / "metrics/features_v1.npz") as archive:
        real, fake = moments_of(archive[f"{case}_real"]), moments_of(archive[f"{case}_gen"])
    assert moments_distance(real, fake, ddof) == pytest.approx(expected, rel=tolerance)
    assert moments_distance(fake, real, ddof) == pytest.approx(expected, rel=tolerance)


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
    mean, cov = torch.ones(dim), random_covariance(dim, seed=3)
    assert 0 <= frechet_distance(mean, cov, mean, cov) < 1e-9


def test_two_dimensions_in_closed_form() -> None:
    cov_a, cov_b = random_covariance(2, seed=1), random_covariance(2, seed=2)
    product = cov_a @ cov_b  # of a 2x2 matrix, tr(M^(1/2)) = sqrt(tr M + 2 sqrt(det M))
    trace_of_root = (product.trace() + 2 * torch.linalg.det(product).sqrt()).sqrt()
    expected = (cov_a.trace() + cov_b.trace() - 2 * trace_of_root).item()
    zero = torch.zeros(2)
    assert frechet_distance(zero, cov_a, zero, cov_b) == pytest.approx(expected, rel=1e-10)


def test_moments_equal_numpy_whatever_the_chunks() -> None:
    rows = np.random.RandomState(0).randn(101, 7).astype(np.float32) + 100
    exact = rows.astype(np.float64)
    for chunk in (1, 10, 101):
        moments = moments_of(rows, chunk)
        np.testing.assert_allclose(moments.mean.numpy(), exact.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(moments.covariance(1).numpy(), np.cov(exact.T), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(moments.covariance(0).numpy(), np.cov(exact.T, ddof=0), rtol=1e-9, atol=1e-9)


def test_merge_equals_appending_all_and_leaves_its_parts() -> None:
    rows = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    first, second, together = moments_of(rows[:20]), moments_of(rows[20:]), moments_of(rows)
    merged = first.merge(second)
    assert (merged.count, first.count, second.count) == (60, 20, 40)
    torch.testing.assert_close(merged.mean, together.mean)
    torch.testing.assert_close(merged.covariance(1), together.covariance(1))


def test_few_rows_warn() -> None:
    rows = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="8 features from only 8 images"):
        moments_distance(moments_of(rows), moments_of(rows[:8]), ddof=1)
    with warnings.catch_warnings(action="error"):
        moments_distance(moments_of(rows), moments_of(rows[:9]), ddof=1)


def test_wrong_use_is_refused() -> None:
    moments = FeatureMoments(4)
    with pytest.raises(ValueError, match=r"\[3, 5\]"):
        moments.append(torch.zeros(3, 5))
    with pytest.raises(ValueError, match="no mean"):
        _ = moments.mean
    moments.append(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="1 rows"):
        moments.covariance(1)
