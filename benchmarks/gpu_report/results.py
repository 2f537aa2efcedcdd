"""Reads what the programs that a report runs leave: files of numbers, tables, run folders."""

import json
import re
import statistics
from pathlib import Path
from typing import Any

from benchmarks.gpu_report.chart import Panel, Points
from training.run_report.run_folder import mean, read_object, read_rows

_INSIDE = re.compile(r"The ten largest \w+ of an iteration: (?P<preset>\S+), batch (?P<batch>\d+), (?P<mode>\S+)")
_WAIT = re.compile(r"Host synchronisation in (?P<phase>\w+): (?P<where>.*)")


def loss_panels(modes: dict[str, dict[str, Any]]) -> list[Panel]:
    """Return the losses of all modes, by step."""
    panels = []
    for column, title in (("G", "Loss of the generator"), ("D", "Loss of the discriminator")):
        curves = {
            name: [(row["step"], row[column]) for row in values["rows"] if row[column] is not None]
            for name, values in modes.items()
        }
        panels.append(Panel(title, "steps", {name: curve for name, curve in curves.items() if curve}))
    return panels


def read_steps(path: Path, output: str) -> dict[str, Any]:
    """Return the rows that train_step.py wrote, and the places at which it waits for the GPU, which it prints."""
    found: dict[str, Any] = {"table": read_object(path).get("rows", []), "waits": waits(output)}
    for row in found["table"]:
        if row["phase"] == "iteration":  # the last of them is the fastest by experience, all are in the table
            found["summary"] = f"iteration, {row['mode']}: {row['images_per_sec']:.1f} images/s"
            if row["ratio_to_baseline"] is not None:
                found["summary"] += f", {row['ratio_to_baseline']:.2f} times the baseline"
    return found


def waits(output: str) -> list[dict[str, str]]:
    """Return the places at which a step waits for the GPU, in the output of train_step.py --profile."""
    found, place = [], {"batch": "", "mode": ""}
    for line in output.splitlines():
        if inside := _INSIDE.match(line):
            place = {"batch": inside["batch"], "mode": inside["mode"]}
        elif wait := _WAIT.match(line):
            found.append({**place, "phase": wait["phase"], "where": wait["where"]})
    return found


def newest(folder: Path | None, pattern: str) -> Path | None:
    """Return the last of the files of this pattern by name."""
    return max(folder.glob(pattern), default=None) if folder else None


def read_training(folder: Path | None) -> tuple[dict[str, Any], list[Panel]]:
    """Return the results of a run and its curves."""
    rows = [row for row in read_rows(folder / "stats.jsonl") if row.get("cur_nimg")] if folder else []
    if not rows:
        return {}, []
    speeds = [sec for row in rows[1:] or rows if (sec := mean(row, "Timing/sec_per_kimg"))]
    kimg = rows[-1]["cur_nimg"] / 1000
    values = {
        "kimg": kimg,
        "s/kimg (median)": statistics.median(speeds) if speeds else None,
        "peak GPU memory, GB": mean(rows[-1], "Resources/peak_gpu_mem_gb"),
        "steps not finite": mean(rows[-1], "Progress/nonfinite_steps"),
        "augmentation p": mean(rows[-1], "Progress/augment"),
        "summary": f"{kimg:.1f} kimg" + (f", {statistics.median(speeds):.2f} s/kimg" if speeds else ""),
    }
    curves: dict[str, Points] = {}
    for name, label in (("Loss/G/loss", "G"), ("Loss/D/loss", "D")):
        curves[label] = [(row["cur_nimg"] / 1000, y) for row in rows if (y := mean(row, name)) is not None]
    return values, [Panel("Losses of the training", "kimg", curves)]


def read_proxies(folder: Path) -> dict[str, Any]:
    """Return the values of metric-*.jsonl, each with that of one half of the real images against the other."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("metric-*.jsonl")):
        for row in read_rows(path)[-1:]:
            floor = f" (real against real {row['floor']:.4g})" if row.get("floor") is not None else ""
            found[row["metric"]] = f"{row['value']:.4g}{floor}"
    return found | {"summary": json.dumps(found)[1:-1].replace('"', "")} if found else {}
