import pytest
import torch

from torch_utils import distributed
from torch_utils.stats import Scalar, Stats


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
        assert torch.equal(moments, early.moments[name].unsqueeze(0))
    every = torch.cat([values.double() for name, values in reports if name == "a"])
    assert late.collect()["a"].mean == pytest.approx(every.mean().item(), rel=1e-12)


def report_by_two(first: bool, second: bool, stats: Stats) -> None:
    """Values whose sum depends on the order in which they are added."""
    for part, is_wanted in ((1, first), (2, second)):
        if is_wanted:
            stats.report("a", torch.tensor([0.1, 1e9, 0.3]) * part / (3 + distributed.rank()))


def resume_by_two(_: None) -> None:
    distributed.init(torch.device("cpu"))
    whole, before, after = Stats(), Stats(), Stats()
    report_by_two(True, True, whole)
    report_by_two(True, False, before)
    saved = distributed.broadcast_object(before.state_dict())
    assert saved["a"].shape == (2, 3)
    after.load_state_dict(saved)
    report_by_two(False, True, after)
    assert after.collect() == whole.collect()
    assert before.collect()["a"].num == 6 and before.collect() == {} == before.state_dict()
    distributed.shutdown()


def test_two_processes_resume_bit_for_bit() -> None:
    distributed.spawn(resume_by_two, 2, None)


def test_a_state_of_other_processes_is_summed() -> None:
    stats = Stats()
    stats.load_state_dict({"a": torch.tensor([[1.0, 2.0, 4.0], [1.0, 4.0, 16.0]]).double()})
    assert stats.collect()["a"] == Scalar(2, 3.0, 1.0)
    stats.load_state_dict({"a": torch.tensor([2.0, 6.0, 20.0]).double()})  # of an older version
    assert stats.collect()["a"] == Scalar(2, 3.0, 1.0)


def test_what_was_reported_may_be_overwritten() -> None:
    stats, values = Stats(), torch.tensor([1.0, 2.0])
    stats.report("a", values)
    values.zero_()
    assert stats.collect()["a"].mean == 1.5
