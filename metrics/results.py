"""The result of a metric, and the JSON lines it is recorded in."""

import contextlib
import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metrics.metric import Setting


@dataclass(frozen=True)
class MetricResult:
    """A value and everything it depends on."""

    metric: str
    value: float
    floor: float | None  # the value of one half of the real images against the other
    details: dict[str, float]  # further figures by name
    settings: Mapping[str, Setting]  # of the computation, such as ddof
    num_real: int  # 0 = the metric takes generated images only
    num_gen: int
    seed: int
    snapshot: str  # name of what was measured
    snapshot_hash: str  # its sha256; empty = unknown
    real_path: str  # absolute; empty = the metric takes generated images only
    real_hash: str  # of its content; empty = as above
    real_cached: bool  # the features of the real set came from the cache
    detector: str
    detector_digest: str  # sha256 of its weights; of the file, where they come from one
    resize: str  # how the detector resized the images
    comparable_to_published: bool  # the definition is a published one, and so are the detector's weights
    versions: dict[str, str]  # of the libraries that computed it
    seconds: float  # of the whole evaluation, which several metrics may have shared
    timestamp: float  # seconds since 1970
    real_is_training_set: bool | None = None  # of the network, by content; None = not known, or no network

    def row(self) -> dict[str, object]:
        """Return the result as plain values; None in place of numbers that are not finite, which JSON does not have."""
        row = dataclasses.asdict(self)
        row["details"] = {name: _finite(value) for name, value in self.details.items()}
        return row | {"value": _finite(self.value), "floor": _finite(self.floor)}

    def summary(self) -> str:
        floor = "" if self.floor is None else f"floor {self.floor:.4g}, "
        details = "".join(f", {name} {value:.3f}" for name, value in self.details.items())
        real = f"{self.num_real:,} real, " if self.num_real else ""
        return f"{self.metric} {self.value:.4g}  ({floor}{real}{self.num_gen:,} generated{details})"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def append_rows(results: Iterable[MetricResult], folder: Path) -> None:
    """Append each result as a line of JSON to metric-<name>.jsonl in a folder, which must exist."""
    for result in results:
        path = rows_path(folder, result.metric)
        start = "\n" if is_torn(path) else ""
        with open(path, "a", encoding="utf-8") as file:
            file.write(start + json.dumps(result.row(), allow_nan=False) + "\n")


def is_torn(path: Path) -> bool:
    """Return whether the last line of a file lacks its end, such as after a kill or on a full disk."""
    if not path.exists() or not path.stat().st_size:
        return False
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def read_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the rows of a metric in a folder; a line that a kill cut short is left out."""
    path, rows = rows_path(folder, name), []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def check_writable(folder: Path, names: Iterable[str]) -> None:
    """Raise OSError unless rows of these metrics can be appended in a folder; nothing in it is changed."""
    with tempfile.TemporaryFile(dir=folder):  # tried, because permission bits say little of root and read-only disks
        pass
    for path in (rows_path(folder, name) for name in names):
        if path.exists():
            open(path, "ab").close()


def rows_path(folder: Path, name: str) -> Path:
    return folder / f"metric-{name}.jsonl"
