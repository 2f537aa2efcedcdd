"""The curves of metric-*.jsonl: the value at each snapshot, and which is best."""

import re
from typing import Any

from training.run_report.curves import Chart, Value
from training.run_report.run_folder import number

_HIGHER_IS_BETTER = re.compile(r"(is|pr|dc)\d")  # Inception score, precision and recall, density and coverage
_SNAPSHOT = re.compile(r"network-snapshot-(\d+)\.pkl")
SETTINGS = (
    "num_real",
    "num_gen",
    "seed",
    "real_hash",
    "detector_digest",
)  # values are comparable only where these agree


def higher_is_better(metric: str) -> bool:
    """Return whether larger values of a metric mean better images."""
    return _HIGHER_IS_BETTER.match(metric) is not None


def metric_charts(metrics: dict[str, list[dict[str, Any]]]) -> list[Chart]:
    """Return a chart for each metric that was measured at a snapshot of this run."""
    charts = [metric_chart(name, rows) for name, rows in metrics.items()]
    return [chart for chart in charts if chart is not None]


def metric_chart(name: str, rows: list[dict[str, Any]]) -> Chart | None:
    """Return the values of a metric at the snapshots, of rows comparable with the first one; None without any."""
    values: dict[int, float] = {}
    floor, settings = None, None
    for row in rows:
        snapshot = _SNAPSHOT.fullmatch(str(row.get("snapshot")))
        value = number(row.get("value"))
        if snapshot is None or value is None:
            continue
        settings = settings or [row.get(key) for key in SETTINGS]
        if [row.get(key) for key in SETTINGS] == settings:
            values[int(snapshot[1])] = value  # the newest of a snapshot that was measured again
            floor = number(row.get("floor"))
    if not values:
        return None
    values = dict(sorted(values.items()))
    curve: list[Value] = list(values.values())
    is_higher = higher_is_better(name)
    best = curve.index(max(values.values()) if is_higher else min(values.values()))
    note = f"Measured at snapshots; {'higher' if is_higher else 'lower'} is better."
    x = [float(kimg) for kimg in values]
    return Chart(name, note, x=x, curves={"value": curve}, is_log=True, best=best, floor=floor)
