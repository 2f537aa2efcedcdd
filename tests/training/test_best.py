"""Which snapshot of a run is kept as the best by a metric."""

import dataclasses
from pathlib import Path

from metrics.results import MetricResult, append_rows
from training.evaluation.snapshots import keep_best

RESULT = MetricResult(
    metric="fid5k_full", value=0.0, floor=None, details={}, settings={}, num_real=50, num_gen=5000, seed=0,
    snapshot="", snapshot_hash="", real_path="/a", real_hash="a", real_cached=False, detector="inception_2015",
    detector_digest="d", resize="", comparable_to_published=True, versions={}, seconds=1.0, timestamp=0.0,
)  # fmt: skip


def measured(folder: Path, number: int, value: float, metric: str = "fid5k_full", **changes: object) -> bool:
    """Record a value of a snapshot and return whether it was kept as the best."""
    snapshot = folder / f"network-snapshot-{number:06d}.pkl"
    snapshot.write_text(f"networks {number}")
    content = {"snapshot": snapshot.name, "snapshot_hash": f"{number} {value}"}
    result = dataclasses.replace(RESULT, metric=metric, value=value, **content, **changes)
    append_rows([result], folder)
    return keep_best([result], snapshot) != []


def test_the_best_is_kept_in_both_directions(tmp_path: Path) -> None:
    kept = [measured(tmp_path, number, value) for number, value in enumerate((9.0, 5.0, 7.0, 5.0, 4.0))]
    assert kept == [True, True, False, False, True]
    assert (tmp_path / "network-snapshot-best-fid5k_full.pkl").read_text() == "networks 4"
    kept = [measured(tmp_path, number, value, "is5k") for number, value in enumerate((2.0, 3.0, 2.5))]
    assert kept == [True, True, False]
    assert (tmp_path / "network-snapshot-best-is5k.pkl").read_text() == "networks 1"


def test_only_finite_and_comparable_values_count(tmp_path: Path) -> None:
    assert not measured(tmp_path, 0, float("nan"))
    assert measured(tmp_path, 1, 5.0)
    assert not measured(tmp_path, 0, float("-inf"))
    assert not measured(tmp_path, 2, 6.0)
    assert measured(tmp_path, 3, 6.0, real_hash="b")
    assert measured(tmp_path, 4, 6.0, seed=1)
    assert measured(tmp_path, 5, 4.9)


def test_the_best_stays_where_another_snapshot_took_its_name(tmp_path: Path) -> None:
    assert measured(tmp_path, 1, 5.0)
    assert measured(tmp_path, 2, 4.0)
    assert not measured(tmp_path, 2, 4.5)
    assert measured(tmp_path, 2, 4.0)  # the same one, measured again
