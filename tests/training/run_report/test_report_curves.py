import math
from typing import Any

import pytest

from metrics.registry import METRICS
from training.run_report.curves import MAX_POINTS, higher_is_better, metric_chart, statistics_charts


def row(kimg: float, **means: float | None) -> dict[str, Any]:
    names = {"G": "Loss/G/loss", "p": "Progress/augment", "speed": "Timing/sec_per_kimg"}
    entries = {names[name]: {"num": 1, "mean": value, "std": 0.0} for name, value in means.items()}
    return {"cur_nimg": round(kimg * 1000), **entries}


def measured(kimg: int, value: float, **others: object) -> dict[str, Any]:
    return {"snapshot": f"network-snapshot-{kimg:06d}.pkl", "value": value, "seed": 0, **others}


def test_a_curve_of_many_ticks_shows_their_means() -> None:
    (chart,) = statistics_charts([row(kimg, G=kimg % 2) for kimg in range(1, 10 * MAX_POINTS + 1)])
    assert (len(chart.x), chart.x[-1]) == (MAX_POINTS, 10 * MAX_POINTS)
    assert set(chart.curves["G"]) == {0.5}


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_what_is_not_finite_is_a_gap(bad: float | None) -> None:
    (chart,) = statistics_charts([row(1, G=0.5), row(2, G=bad), row(3), row(4, G=0.25)])
    assert chart.x == [1, 2, 3, 4]
    assert chart.curves == {"G": [0.5, None, None, 0.25]}


def test_what_was_not_measured_has_no_chart() -> None:
    """The row before the first step has no useful speed, and an augmentation that is off no curve."""
    assert statistics_charts([row(0, speed=123.0)]) == []
    (chart,) = statistics_charts([row(0, speed=123.0, p=0.0), row(1, speed=5.0, p=0.0)])
    assert (chart.title, chart.x) == ("Speed", [1])


def test_directions_are_those_of_the_metrics() -> None:
    assert {name: higher_is_better(name) for name in METRICS} == {
        name: metric.higher_is_better for name, metric in METRICS.items()
    }


def test_best_of_comparable_rows_of_a_metric() -> None:
    rows = [
        measured(0, 300.0), measured(4, 10.0), measured(4, 12.0, floor=3.0), measured(8, 1.0, seed=1), measured(12, math.nan),
        {"snapshot": "other.pkl", "value": 0.5, "seed": 0}, {"value": "much"},
    ]  # fmt: skip
    lower, higher = metric_chart("fid50k_full", rows), metric_chart("is50k", rows)
    assert lower is not None and higher is not None
    assert (lower.x, lower.curves["value"], lower.floor) == ([0, 4], [300.0, 12.0], 3.0)  # the newest of two
    assert (lower.best, higher.best) == (1, 0)
    assert metric_chart("fid50k_full", rows[-2:]) is None
