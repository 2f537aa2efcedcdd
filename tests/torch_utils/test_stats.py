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


def test_sums_do_not_depend_on_when_they_are_made() -> None:
    """Bit for bit, whatever lies between two reports: a run that saves its state goes on like one that does not."""
    torch.manual_seed(0)
    reports = [(name, torch.randn(size) * 1e3) for size in (4, 32, 1, 7) for name in ("a", "b", "a", "c") * 9]
    late, early = Stats(), Stats()
    for name, values in reports:
        late.report(name, values)
        early.report(name, values)
        early.sum_up()
    assert len(late.pending) < len(reports)  # some were summed on the way
    for name, moments in late.state_dict().items():
        assert torch.equal(moments, early.moments[name])
    every = torch.cat([values.double() for name, values in reports if name == "a"])
    assert late.collect()["a"].mean == pytest.approx(every.mean().item(), rel=1e-12)


def test_what_was_reported_may_be_overwritten() -> None:
    stats, values = Stats(), torch.tensor([1.0, 2.0])
    stats.report("a", values)
    values.zero_()
    assert stats.collect()["a"].mean == 1.5
