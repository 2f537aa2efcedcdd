"""The curves of metric-*.jsonl: the value at each snapshot, and which is best."""

import re
from collections import Counter
from typing import Any

from training.run_report.curves import MAX_POINTS, Chart, Value, buckets
from training.run_report.run_folder import number

_HIGHER_IS_BETTER = re.compile(r"(is|pr|dc)\d")  # Inception score, precision and recall, density and coverage
_SNAPSHOT = re.compile(r"network-snapshot-(\d+)\.pkl")
_SAME = ("num_real", "num_gen", "seed", "real_hash", "detector_digest")  # values are comparable only where these agree


def higher_is_better(metric: str) -> bool:
    """Whether larger values of a metric mean better images."""
    return _HIGHER_IS_BETTER.match(metric) is not None


def metric_charts(metrics: dict[str, list[dict[str, Any]]]) -> list[Chart]:
    """Return a chart for each metric that was measured at a snapshot of this run."""
    charts = [metric_chart(name, rows) for name, rows in metrics.items()]
    return [chart for chart in charts if chart is not None]


def metric_chart(name: str, rows: list[dict[str, Any]]) -> Chart | None:
    """Return the value of a metric at each snapshot, of those rows that are comparable; None without one."""
    kinds = [str([row.get(key) for key in _SAME]) for row in rows]
    if not rows:
        return None
    commonest = Counter(reversed(kinds)).most_common(1)[0][0]  # of equally common ones the newest
    values: dict[int, float] = {}
    floor = None
    for row, kind in zip(rows, kinds, strict=True):
        snapshot = _SNAPSHOT.fullmatch(str(row.get("snapshot")))
        value = number(row.get("value"))
        if snapshot and value is not None and kind == commonest:
            values[int(snapshot[1])] = value  # the newest of a snapshot that was measured again
            floor = number(row.get("floor"))
    if not values:
        return None
    kept = thinned(dict(sorted(values.items())), higher_is_better(name))
    best = list(kept).index(best_kimg(kept, higher_is_better(name)))
    direction = "higher" if higher_is_better(name) else "lower"
    note = f"Measured at snapshots; {direction} is better."
    x = [float(kimg) for kimg in kept]
    curves: dict[str, list[Value]] = {"value": list(kept.values())}
    return Chart(name, note, x, curves, is_log=True, best=best, floor=floor)


def best_kimg(values: dict[int, float], is_higher: bool) -> int:
    """Return where the best value is; the first of equal ones."""
    return max(values, key=lambda kimg: values[kimg] if is_higher else -values[kimg])


def thinned(values: dict[int, float], is_higher: bool) -> dict[int, float]:
    """Return a bounded number of the values, the best, the first and the last among them."""
    kimgs = list(values)
    kept = {kimgs[part.start] for part in buckets(len(kimgs), MAX_POINTS - 2)}
    kept |= {kimgs[-1], best_kimg(values, is_higher)}
    return {kimg: value for kimg, value in values.items() if kimg in kept}
