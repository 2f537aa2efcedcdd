"""The Inception score against recorded values of other programs and in closed form."""

import json
import math

import pytest
import torch
from golden_data import DATA, arrays

from metrics.distances.inception_score import inception_score


@pytest.mark.parametrize("num_splits", [1, 10])
def test_recorded_values(num_splits: int) -> None:
    values = json.loads((DATA / "metrics/features_v1.json").read_text())
    logits = torch.from_numpy(arrays("metrics/features_v1")["logits"])
    mean, std = inception_score(logits, num_splits)
    assert mean - 1 == pytest.approx(values[f"logits.torch_fidelity.is{num_splits}_mean_noshuffle"] - 1, rel=1e-9)
    assert std == pytest.approx(values[f"logits.torch_fidelity.is{num_splits}_std_noshuffle"], rel=1e-9, abs=1e-15)
    if num_splits == 10:
        assert mean != pytest.approx(values["logits.torch_fidelity.is10_mean_shuffle2020"], rel=1e-3)


def test_extremes() -> None:
    sure = torch.eye(7).repeat(10, 1) * 2000  # of every class equally often; other probabilities are zero in float64
    assert inception_score(sure, num_splits=10) == pytest.approx((7.0, 0.0))
    one_opinion = torch.tensor([0.3, 2.0, -1.0]).expand(20, 3)
    assert inception_score(one_opinion, num_splits=2) == pytest.approx((1.0, 0.0))


def test_splits_are_contiguous_and_nearly_equal() -> None:
    logits = torch.randn(23, 5, generator=torch.Generator().manual_seed(0))
    parts = [inception_score(part, 1)[0] for part in (logits[:5], logits[5:11], logits[11:17], logits[17:])]
    mean, std = inception_score(logits, num_splits=4)
    assert mean == pytest.approx(sum(parts) / 4)
    assert std == pytest.approx(math.sqrt(sum((part - mean) ** 2 for part in parts) / 4))
