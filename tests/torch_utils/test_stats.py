import pytest
import torch

from torch_utils.stats import Stats


def test_averages_over_reports() -> None:
    stats = Stats()
    stats.report("a", torch.tensor([1.0, 2.0]))
    stats.report("a", torch.tensor([[6.0]]))
    stats.report("b", 5.0)
    collected = stats.collect()
    assert (collected["a"].num, collected["a"].mean) == (3, 3.0)
    assert collected["a"].std == pytest.approx(torch.tensor([1.0, 2.0, 6.0]).std(correction=0).item())
    assert collected["b"].mean == 5.0
    assert stats.collect() == {}


def test_goes_on_from_a_saved_state() -> None:
    first, second = Stats(), Stats()
    first.report("a", 1.0)
    second.load_state_dict(first.state_dict())
    second.report("a", 3.0)
    assert (second.collect()["a"].mean, first.collect()["a"].mean) == (2.0, 1.0)
