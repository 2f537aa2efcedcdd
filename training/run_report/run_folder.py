"""Reads a run folder for its report: whatever is missing or damaged is left out, since a report is better than none."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnnlib.dataclass_values import ConfigError
from training.config import DatasetSpec, RunConfig
from training.presets import preset
from training.run.names import FACTS_FILE, LOG_FILE, OPTIONS_FILE, STATS_FILE

_LOG_BYTES = 1_000_000  # of the end of a log that are looked at
_LOGGED_DATA = re.compile(r": ([\d,]+) (?:images|pictures) of (\d+)x(\d+) px(?:, (\d+) classes)?, ")


@dataclass(frozen=True)
class RunFolder:
    """What the files of a run folder say."""

    path: Path
    rows: list[dict[str, Any]]  # of stats.jsonl, by images seen
    metrics: dict[str, list[dict[str, Any]]]  # rows of metric-*.jsonl by name of the metric
    options: dict[str, Any]  # the configuration; {} = unknown
    facts: dict[str, Any]  # what `training.run_report.facts` recorded; of an older run what the log says
    log: list[str]  # its last lines

    @property
    def cur_kimg(self) -> float:
        """Thousands of images seen."""
        return self.rows[-1]["cur_nimg"] / 1000 if self.rows else 0.0

    @property
    def total_kimg(self) -> float | None:
        """Thousands of images to train on; None = unknown."""
        schedule = self.options.get("schedule")
        return number(schedule.get("kimg")) if isinstance(schedule, dict) else None

    @property
    def training_sec(self) -> float:
        """Time spent over all restarts: training, images and metrics."""
        total, last_nimg = 0.0, 0
        for row in self.rows:
            per_kimg, upkeep = (mean(row, f"Timing/{name}") or 0.0 for name in ("sec_per_kimg", "maintenance_sec"))
            total += per_kimg * (row["cur_nimg"] - last_nimg) / 1000 + upkeep
            last_nimg = row["cur_nimg"]
        return total

    def preset_options(self) -> dict[str, Any] | None:
        """The configuration of the run's preset for its images and processes; None where that cannot be told."""
        try:
            data = self.facts["data"]
            spec = DatasetSpec(data["height"], data["width"], data.get("channels", 3), data.get("classes", 0))
            return preset(str(self.options["preset"]), spec, self.facts.get("processes", 1)).to_dict()
        except (ConfigError, KeyError, TypeError, ValueError):
            return None


def read_run(path: Path) -> RunFolder:
    """Return what the files of a run folder say; none of them need exist."""
    log = tail(path / LOG_FILE)
    rows = {row["cur_nimg"]: row for row in read_rows(path / STATS_FILE) if number(row.get("cur_nimg")) is not None}
    return RunFolder(
        path=path,
        rows=[rows[nimg] for nimg in sorted(rows)],
        metrics={file.stem.removeprefix("metric-"): read_rows(file) for file in sorted(path.glob("metric-*.jsonl"))},
        options=with_defaults(read_object(path / OPTIONS_FILE)),
        facts=read_object(path / FACTS_FILE) or facts_of_log(log),
        log=log,
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines; a line that is not one, such as a half-written last one, is left out."""
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
    """Return the object that a JSON file holds; {} where there is none."""
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def read_text(path: Path) -> str:
    """Return the text of a file; "" where it cannot be read, and signs in place of what is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def tail(path: Path) -> list[str]:
    """Return the last lines of a text file."""
    try:
        with open(path, "rb") as file:
            file.seek(max(file.seek(0, 2) - _LOG_BYTES, 0))
            return file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []


def with_defaults(options: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with the defaults of fields that an older version did not have; as it is if it is not ours."""
    try:
        return RunConfig.from_dict(options).to_dict() if options else {}
    except (ConfigError, TypeError, ValueError):
        return options


def facts_of_log(lines: list[str]) -> dict[str, Any]:
    """Return what the log of a run tells that has no file of facts."""
    facts: dict[str, Any] = {}
    for line in lines:
        if found := _LOGGED_DATA.search(line):
            images, width, height, classes = (int((text or "0").replace(",", "")) for text in found.groups())
            facts["data"] = {"pictures": images, "width": width, "height": height, "classes": classes}
            facts["status"] = "running"
        elif line.startswith("Done."):
            facts["status"] = "done"
        elif line.startswith("Stopped at"):
            facts |= {
                "status": "stopped",
                "reason": line.partition(": ")[2].removesuffix(". To resume:").removesuffix(". To go on:"),
            }
    return facts


def mean(row: dict[str, Any], name: str) -> float | None:
    """Return the mean of a statistic in a row of stats.jsonl; None where it is missing or not finite."""
    entry = row.get(name)
    return number(entry.get("mean")) if isinstance(entry, dict) else None


def number(value: Any) -> float | None:
    """Return a value if it is a finite number; else None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and abs(value) < 1e300 else None
