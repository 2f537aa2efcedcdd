"""Copies the best snapshot of a run, per metric."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dnnlib.files import atomic_write
from metrics.registry import get
from metrics.results import MetricResult, read_rows
from training.run_report.curves import SAME_SETTINGS


def keep_best(results: Sequence[MetricResult], snapshot: Path) -> list[Path]:
    """Copy a snapshot to network-snapshot-best-<metric>.pkl for each metric in which it is the best of its run.

    It is compared with the rows of metric-<metric>.jsonl with the same counts, seed, images and detector, also of snapshots
    that were replaced since.
    Returns the copies that were written.
    """
    written = []
    for result in results:
        path = snapshot.with_name(f"network-snapshot-best-{result.metric}.pkl")
        if is_best(result, read_rows(snapshot.parent, result.metric)):
            with open(snapshot, "rb") as source, atomic_write(path) as target:
                shutil.copyfileobj(source, target)
            written.append(path)
    return written


def is_best(result: MetricResult, recorded: Sequence[dict[str, Any]]) -> bool:
    """Whether a result is better than every comparable row of another snapshot."""
    if not math.isfinite(result.value):
        return False
    sign = 1 if get(result.metric).higher_is_better else -1
    row = result.row()
    others = [
        other["value"]
        for other in recorded
        if other.get("snapshot_hash") != result.snapshot_hash
        and all(other.get(name) == row[name] for name in SAME_SETTINGS)
    ]
    return all(sign * result.value > sign * value for value in others if value is not None and math.isfinite(value))
