"""Reads a run folder for its report; missing and damaged files are left out."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnnlib.dataclass_values import ConfigError
from training.config import DatasetSpec, RunConfig
from training.presets import PERFORMANCE, preset, with_bounded_p
from training.run.names import FACTS_FILE, LOG_FILE, OPTIONS_FILE, STATS_FILE

_LOG_BYTES = 1_000_000  # read from the end of a log


@dataclass(frozen=True)
class RunFolder:
    """The content of the files of a run folder."""

    rows: list[dict[str, Any]]  # of stats.jsonl, by images seen
    metrics: dict[str, list[dict[str, Any]]]  # rows of metric-*.jsonl by name of the metric
    options: dict[str, Any]  # the configuration; {} = unknown
    facts: dict[str, Any]  # recorded by `training.run_report.renewal`
    log: list[str]  # its last lines

    @property
    def cur_kimg(self) -> float:
        return self.rows[-1]["cur_nimg"] / 1000 if self.rows else 0.0

    @property
    def total_kimg(self) -> float | None:
        """Thousands of images to train on; None = unknown."""
        schedule = self.options.get("schedule")
        return number(schedule.get("kimg")) if isinstance(schedule, dict) else None

    @property
    def training_sec(self) -> float:
        """Time spent on training, images and metrics, over all restarts."""
        total, last_nimg = 0.0, 0
        for row in self.rows:
            per_kimg, others = (mean(row, f"Timing/{name}") or 0.0 for name in ("sec_per_kimg", "maintenance_sec"))
            total += per_kimg * (row["cur_nimg"] - last_nimg) / 1000 + others
            last_nimg = row["cur_nimg"]
        return total

    def preset_options(self) -> dict[str, Any] | None:
        """Return the configuration of the run's preset for its images and processes; None if unknown."""
        try:
            data = self.facts["data"]
            spec = DatasetSpec(data["height"], data["width"], data.get("channels", 3), data.get("classes", 0))
            config = with_bounded_p(preset(str(self.options["preset"]), spec, self.facts.get("processes", 1)))
            return config.changed(performance=PERFORMANCE).to_dict()
        except (ConfigError, KeyError, TypeError, ValueError):
            return None


def read_run(path: Path) -> RunFolder:
    """Return the content of a run folder; no file needs to exist."""
    rows = {row["cur_nimg"]: row for row in read_rows(path / STATS_FILE) if number(row.get("cur_nimg")) is not None}
    return RunFolder(
        rows=[rows[nimg] for nimg in sorted(rows)],
        metrics={file.stem.removeprefix("metric-"): read_rows(file) for file in sorted(path.glob("metric-*.jsonl"))},
        options=with_defaults(read_object(path / OPTIONS_FILE)),
        facts=read_object(path / FACTS_FILE),
        log=tail(path / LOG_FILE),
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines, without damaged ones."""
    rows = []
    for line in read_text(path).splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; {} if there is none."""
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def read_text(path: Path) -> str:
    """Return the text of a file; "" if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def tail(path: Path) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.seek(max(file.seek(0, 2) - _LOG_BYTES, 0))
            return file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []


def with_defaults(options: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with defaults for fields that an older version lacks."""
    try:
        return RunConfig.from_dict(options).to_dict() if options else {}
    except (ConfigError, TypeError, ValueError):
        return options


def mean(row: dict[str, Any], name: str) -> float | None:
    """Return the mean of a statistic in a row of stats.jsonl; None if missing or not finite."""
    entry = row.get(name)
    return number(entry.get("mean")) if isinstance(entry, dict) else None


def number(value: Any) -> float | None:
    """Return a value if it is a finite number; else None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and abs(value) < 1e300 else None
