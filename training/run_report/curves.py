"""The curves of a run: which there are, and a bounded number of points of each."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from training.run_report.run_folder import mean

MAX_POINTS = 400  # of a curve: a little more than a chart has pixels on a phone
_DIGITS = 5

Value = float | None  # None = a gap


@dataclass(frozen=True)
class Chart:
    """Curves that share their axes; the x axis is thousands of images."""

    title: str
    note: str  # what it shows, in a sentence
    x: list[float]
    curves: dict[str, list[Value]]  # by label, as long as x
    is_log: bool = False  # a logarithmic axis is useful where the values span decades
    best: int | None = None  # index of the best point
    floor: float | None = None  # a value to compare with
    unit: str = ""
    from_zero: bool = False  # the axis begins there

    def plain(self) -> dict[str, Any]:
        """The chart as JSON has it, in a few digits a number."""
        curves = [{"label": label, "y": [short(value) for value in values]} for label, values in self.curves.items()]
        return asdict(self) | {"x": [short(value) for value in self.x], "curves": curves, "floor": short(self.floor)}


@dataclass(frozen=True)
class Statistic:
    """A chart of stats.jsonl: label -> name there."""

    title: str
    note: str
    names: dict[str, str]
    is_log: bool = False
    skip_zero: bool = False  # a curve that is 0 throughout tells nothing
    unit: str = ""
    from_zero: bool = False


STATISTICS = (
    Statistic(
        "Losses", "Losses of the generator (G) and the discriminator (D).",
        {"G": "Loss/G/loss", "D": "Loss/D/loss"},
    ),
    Statistic(
        "Scores", "Mean output of the discriminator: above 0 it takes images for real.",
        {"real": "Loss/scores/real", "generated": "Loss/scores/fake"},
    ),
    Statistic(
        "Signs of the scores", "1: all are judged real, -1: all generated. Real near 1 means overfitting.",
        {"real": "Loss/signs/real", "generated": "Loss/signs/fake"},
    ),
    Statistic("Augmentation", "Probability p of each transform.", {"p": "Progress/augment"}, skip_zero=True),
    Statistic(
        "Gradient penalties", "Squared gradient of the score at real (R1) and generated (R2) images.",
        {"R1": "Loss/r1_penalty", "R2": "Loss/r2_penalty"}, is_log=True,
    ),
    Statistic("R1 approximated", "As a share of the exact value.", {"ratio": "Loss/r1_approx_to_exact"}),
    Statistic("Learning rates", "Before lazy scaling.",
              {"G": "Schedule/optimizer.g_lr", "D": "Schedule/optimizer.d_lr"}, is_log=True),
    Statistic("Adam's beta2", "Decay of the mean squared gradient.", {"beta2": "Schedule/optimizer.beta2"}),
    Statistic("Penalty weight", "Gamma.", {"gamma": "Schedule/loss.r1_gamma"}, is_log=True),
    Statistic("EMA half-life", "Thousands of images.", {"kimg": "Schedule/ema.kimg"}),
    Statistic("Path length", "How far images move with the style.", {"length": "Loss/path_length"}),
    Statistic("Path-length penalty", "Squared deviation from the mean.", {"penalty": "Loss/pl_penalty"}, is_log=True),
    Statistic(
        "Steps that were not finite", "Since the start of the run.", {"steps": "Progress/nonfinite_steps"}, skip_zero=True,
    ),
    Statistic("Speed", "Seconds a thousand images.", {"s/kimg": "Timing/sec_per_kimg"}, unit="s", from_zero=True),
    Statistic(
        "Memory", "Peak of the first process, and of its GPU.",
        {"CPU": "Resources/cpu_mem_gb", "GPU": "Resources/peak_gpu_mem_gb"}, unit="GB", from_zero=True,
    ),
)  # fmt: skip


def statistics_charts(rows: Sequence[dict[str, Any]]) -> list[Chart]:
    """Return the charts of stats.jsonl for which there are values."""
    trained = [row for row in rows if row["cur_nimg"] > 0]  # before the first step nothing was measured
    kimg = [row["cur_nimg"] / 1000 for row in trained]
    groups = list(buckets(len(trained)))
    charts = []
    for statistic in STATISTICS:
        curves = {label: [mean(row, name) for row in trained] for label, name in statistic.names.items()}
        kept = {
            label: [average(values[part]) for part in groups]
            for label, values in curves.items()
            if any(value is not None and (value or not statistic.skip_zero) for value in values)
        }
        if kept:
            x = [kimg[part][-1] for part in groups]
            charts.append(
                Chart(
                    statistic.title, statistic.note, x, kept, statistic.is_log, unit=statistic.unit,
                    from_zero=statistic.from_zero,
                )
            )  # fmt: skip
    return charts


def buckets(count: int, limit: int = MAX_POINTS) -> Iterable[slice]:
    """Cut `count` points into at most `limit` runs of equal length; only the last may be shorter."""
    length = max(-(-count // limit), 1)
    return (slice(start, min(start + length, count)) for start in range(0, count, length))


def average(values: Iterable[Value]) -> Value:
    """Return the mean of the values that are there; None if none is."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def short(value: Value) -> Value:
    """Return a number with a few significant digits."""
    return None if value is None else float(f"{value:.{_DIGITS}g}")
