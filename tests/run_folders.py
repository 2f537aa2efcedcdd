"""Run folders like those of real runs, made without training, and a server of their reports."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from file_server import running
from PIL import Image

from training.config import DatasetSpec
from training.presets import preset
from training.run.names import FACTS_FILE, LOG_FILE, OPTIONS_FILE, STATS_FILE
from training.run_report.server import ReportServer

METRICS = ("fid50k_full", "is50k")
FACTS = {
    "command": "python train.py --outdir=runs --data=digits.zip --cfg=demo --cond=1 --resume=latest",
    "device": "CPU (Imaginary Processor)",
    "processes": 1,
    "versions": {"Styleformer": "0.1.0", "Python": "3.11.7", "PyTorch": "2.11.0"},
    "parameters": {"G": 1_234_567, "D": 765_432},
    "data": {"name": "digits.zip", "pictures": 6000, "files": 6000, "width": 32, "height": 32, "channels": 3, "classes": 10,
             "class_names": list("0123456789")},
    "status": "done",
    "reason": "",
    "timestamp": 1_700_000_000.0,
}  # fmt: skip


@contextlib.contextmanager
def served(outdir: Path) -> Iterator[ReportServer]:
    """A server of the reports of the runs in a folder, in a thread."""
    with ReportServer(outdir, 0) as server, running(server):
        yield server


def make_run(
    path: Path, num_snapshots: int = 50, num_rows: int = 300, kimg: float = 1000.0, facts: dict[str, Any] | None = None
) -> Path:
    """Fill a folder as a run of the demo does: grids, statistics with gaps, metrics, a log."""
    path.mkdir(parents=True)
    options = preset("demo", DatasetSpec(32, 32, 3, 10)).to_dict()
    options["schedule"] |= {"kimg": kimg, "metrics": list(METRICS)}
    options["data"] |= {"path": "digits.zip", "cond": True}
    options["loss"]["r1_gamma"] = 0.5
    (path / OPTIONS_FILE).write_text(json.dumps(options), encoding="utf-8")
    (path / FACTS_FILE).write_text(json.dumps(FACTS if facts is None else facts), encoding="utf-8")
    kimgs = [round(kimg * index / max(num_snapshots - 1, 1)) for index in range(num_snapshots)]
    write_grids(path, kimgs)
    rows = [stats_row(kimg * index / max(num_rows - 1, 1), index) for index in range(num_rows)]
    (path / STATS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for metric in METRICS:
        write_metric(path, metric, kimgs[1:])
    lines = ["Warning: 00000/img00000007.png in digits.zip cannot be read: Bad CRC-32", *(f"kimg {k}" for k in kimgs)]
    (path / LOG_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_grids(path: Path, kimgs: list[int]) -> None:
    """Write fakes*.png and reals.png: rings, less and less noisy."""
    y, x = np.mgrid[:256, :320]
    clean = np.where(abs(np.hypot(x % 32 - 16, y % 32 - 16) - 9) < 3, 200.0, 30.0)
    rng = np.random.default_rng(0)
    for index, kimg in enumerate(kimgs):
        noisy = clean + rng.normal(0, 60 * (1 - index / len(kimgs)), size=clean.shape)
        image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        image.convert("RGB").save(path / f"fakes{kimg:06d}.png", compress_level=1)
    Image.fromarray(clean.astype(np.uint8)).convert("RGB").save(path / "reals.png")


def stats_row(kimg: float, index: int) -> dict[str, Any]:
    """A row of stats.jsonl; some losses are null, as after a bad step, or NaN, as older versions wrote it."""
    rng = np.random.default_rng(index)
    decay = math.exp(-kimg / 300)
    means: dict[str, float | None] = {
        "Progress/kimg": kimg, "Progress/augment": 0.3 * (1 - decay), "Progress/nonfinite_steps": 0,
        "Timing/sec_per_kimg": 5 + rng.random(), "Timing/maintenance_sec": 2.0,
        "Resources/cpu_mem_gb": 2.5 + kimg / 5000, "Resources/peak_gpu_mem_gb": 8.1,
    }  # fmt: skip
    if index:
        means |= {
            "Loss/G/loss": 0.8 + decay + rng.normal(0, 0.1), "Loss/D/loss": 1.2 - 0.4 * decay + rng.normal(0, 0.05),
            "Loss/scores/real": 0.5 + rng.normal(0, 0.1), "Loss/scores/fake": -0.6 + rng.normal(0, 0.1),
            "Loss/signs/real": 0.4 + rng.normal(0, 0.03), "Loss/signs/fake": -0.5 + rng.normal(0, 0.03),
            "Loss/r1_penalty": 0.02 * math.exp(kimg / 200 + rng.normal(0, 0.2)),
            "Loss/path_length": 1.5 + rng.normal(0, 0.1), "Loss/pl_penalty": 0.1 * decay + 0.001,
        }  # fmt: skip
    if 100 <= index < 120:
        means["Loss/G/loss"] = None if index % 2 else float("nan")
    rows = {name: {"num": 1, "mean": value, "std": 0.0} for name, value in means.items()}
    return {"cur_nimg": round(kimg * 1000), **rows, "timestamp": 1_700_000_000.0 + 6 * kimg}


def write_metric(path: Path, metric: str, kimgs: list[int]) -> None:
    """Write metric-*.jsonl; lower values come later, and the last is not the best."""
    rows = []
    for index, kimg in enumerate(kimgs):
        value = 5 + 300 * math.exp(-index / 6) + 0.05 * max(index - 35, 0)
        rows.append({
            "metric": metric, "value": value if not metric.startswith("is") else 10 - value / 40,
            "floor": 3.2 if metric.startswith("fid") else None, "num_real": 6000, "num_gen": 50_000, "seed": 0,
            "real_hash": "a", "detector_digest": "b", "snapshot": f"network-snapshot-{kimg:06d}.pkl",
        })  # fmt: skip
    (path / f"metric-{metric}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
