"""The kernel distance against recorded values of other programs and against its definition."""

import numpy as np
import pytest
import torch
from inception_golden import recorded_features

from metrics.distances.kernel import kernel_distance, mean_discrepancy


@pytest.mark.parametrize(("case", "count"), [("full", 240), ("lowrank", 36)])
def test_one_subset_of_all(case: str, count: int) -> None:
    real, fake, values = recorded_features(case)
    expected = values[f"{case}.torch_fidelity.kid_first{count}_fullset_f64"]
    assert mean_discrepancy(fake[:count], real[:count]) == pytest.approx(expected, rel=1e-9)
    assert kernel_distance(fake[:count], real[:count], num_subsets=1)[0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("case", ["full", "lowrank"])
def test_subsets(case: str) -> None:
    real, fake, values = recorded_features(case)
    mean, std = kernel_distance(fake, real, num_subsets=10, max_subset=30)
    assert mean == pytest.approx(values[f"{case}.torch_fidelity.kid_10x30_mean_f64"], rel=1e-6)
    assert std == pytest.approx(values[f"{case}.torch_fidelity.kid_10x30_std_f64"], rel=1e-6)
    other_order = kernel_distance(real, fake, num_subsets=10, max_subset=30)[0]
    other_seed = kernel_distance(fake, real, num_subsets=10, max_subset=30, seed=0)[0]
    assert other_order != pytest.approx(mean, rel=1e-6)
    assert other_seed != pytest.approx(mean, rel=1e-6)


def test_definition_for_sets_of_different_size() -> None:
    x, y = np.random.RandomState(0).randn(5, 3), np.random.RandomState(1).randn(4, 3)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 3 + 1) ** 3)

    within_x = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    within_y = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    expected = within_x + within_y - 2 * np.mean([k(a, b) for a in x for b in y])
    found = mean_discrepancy(torch.from_numpy(x), torch.from_numpy(y))
    assert found == pytest.approx(expected, rel=1e-12)
