"""The curves of stats.jsonl, with a bounded number of points each, and of metric-*.jsonl: the value at each snapshot."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from training.run_report.run_folder import mean, number

MAX_POINTS = 400  # of a curve: a little more than a chart has pixels on a phone
_DIGITS = 5
_HIGHER_IS_BETTER = re.compile(r"(is|pr|dc)\d")  # Inception score, precision and recall, density and coverage
_SNAPSHOT = re.compile(r"network-snapshot-(\d+)\.pkl")
# Values of a metric are comparable only where these agree.
SAME_SETTINGS = ("num_real", "num_gen", "seed", "real_hash", "detector_digest")

Value = float | None  # None = a gap


@dataclass(frozen=True)
class Chart:
    """Curves that share their axes; the x axis is thousands of images."""

    title: str
    note: str  # what it shows, in a sentence
    statistics: dict[str, str] = field(default_factory=dict)  # of stats.jsonl, by label
    x: list[float] = field(default_factory=list)
    curves: dict[str, list[Value]] = field(default_factory=dict)  # by label, as long as x
    is_log: bool = False  # logarithmic axis if the values span decades
    best: int | None = None  # index of the best point
    floor: float | None = None  # a value to compare with
    unit: str = ""
    from_zero: bool = False  # the axis starts at 0
    skip_zero: bool = False  # leave out curves that are 0 throughout

    def plain(self) -> dict[str, Any]:
        """Return the chart as plain data, with rounded numbers."""
        curves = [{"label": label, "y": [short(value) for value in values]} for label, values in self.curves.items()]
        return asdict(self) | {"x": [short(value) for value in self.x], "curves": curves, "floor": short(self.floor)}


STATISTICS = (
    Chart("Losses", "Losses of the generator (G) and the discriminator (D).", {"G": "Loss/G/loss", "D": "Loss/D/loss"}),
    Chart("Class loss", "Cross-entropy over the classes of real images.", {"D": "Loss/D/class"}),
    Chart(
        "Scores",
        "Mean output of the discriminator: above 0 it takes images for real; with a relativistic loss, above the other curve.",
        {"real": "Loss/scores/real", "generated": "Loss/scores/fake"},
    ),
    Chart(
        "Signs of the scores", "1: all are taken for real, -1: for generated. Real near 1 means overfitting.",
        {"real": "Loss/signs/real", "generated": "Loss/signs/fake"},
    ),
    Chart("Augmentation", "Probability p of each transform.", {"p": "Progress/augment"}, skip_zero=True),
    Chart(
        "Gradient penalties", "Squared gradient of the score at real (R1) and generated (R2) images.",
        {"R1": "Loss/r1_penalty", "R2": "Loss/r2_penalty"}, is_log=True,
    ),
    Chart("R1 approximated", "As a share of the exact value.", {"ratio": "Loss/r1_approx_to_exact"}),
    Chart(
        "Learning rates", "Before lazy scaling.",
        {"G": "Schedule/optimizer.g_lr", "D": "Schedule/optimizer.d_lr"}, is_log=True,
    ),
    Chart("Adam's beta2", "Decay of the mean squared gradient.", {"beta2": "Schedule/optimizer.beta2"}),
    Chart("Penalty weight", "Gamma of R1 and R2.", {"gamma": "Schedule/loss.r1_gamma"}, is_log=True),
    Chart("EMA half-life", "Thousands of images.", {"kimg": "Schedule/ema.kimg"}),
    Chart("Path length", "How far images move with the style.", {"length": "Loss/path_length"}),
    Chart("Path-length penalty", "Squared deviation from the mean.", {"penalty": "Loss/pl_penalty"}, is_log=True),
    Chart("Non-finite steps", "Since the start of the run.", {"steps": "Progress/nonfinite_steps"}, skip_zero=True),
    Chart("Speed", "Seconds per thousand images.", {"s/kimg": "Timing/sec_per_kimg"}, unit="s", from_zero=True),
    Chart(
        "Memory", "Peak of the first process, and of its GPU.",
        {"CPU": "Resources/cpu_mem_gb", "GPU": "Resources/peak_gpu_mem_gb"}, unit="GB", from_zero=True,
    ),
)  # fmt: skip


def statistics_charts(rows: Sequence[dict[str, Any]]) -> list[Chart]:
    """Return the charts of stats.jsonl for which there are values."""
    trained = [row for row in rows if row["cur_nimg"] > 0]  # before the first step nothing was measured
    length = max(-(-len(trained) // MAX_POINTS), 1)  # of a bucket, which becomes a point
    groups = [slice(start, start + length) for start in range(0, len(trained), length)]
    x = [trained[part][-1]["cur_nimg"] / 1000 for part in groups]
    charts = []
    for chart in STATISTICS:
        curves = {label: [mean(row, name) for row in trained] for label, name in chart.statistics.items()}
        shown = {
            label: [average(values[part]) for part in groups]
            for label, values in curves.items()
            if any(value is not None and (value or not chart.skip_zero) for value in values)
        }
        if shown:
            charts.append(replace(chart, statistics={}, x=x, curves=shown))
    return charts


def average(values: Iterable[Value]) -> Value:
    """Return the mean of the values that are not None; None if there are none."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def short(value: Value) -> Value:
    """Return a number rounded to a few significant digits."""
    return None if value is None else float(f"{value:.{_DIGITS}g}")


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
        settings = settings or [row.get(key) for key in SAME_SETTINGS]
        if [row.get(key) for key in SAME_SETTINGS] == settings:
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
