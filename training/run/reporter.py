"""Logs a run: status line, progress bar, stats.jsonl, TensorBoard."""

import contextlib
import json
import math
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from dnnlib.files import atomic_write
from dnnlib.text import format_duration
from torch_utils.stats import Scalar
from training.run.names import STATS_FILE


def memory_gb(device: torch.device) -> dict[str, float]:
    """Peak memory since the last call in GB: of this process and, on a GPU, what PyTorch reserved there.

    The peak of allocated tensors would miss those of CUDA graphs.
    """
    cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # kilobytes on Linux
    if device.type != "cuda":
        return {"Resources/cpu_mem_gb": cpu}
    gpu = torch.cuda.max_memory_reserved(device) / 2**30
    torch.cuda.reset_peak_memory_stats(device)
    return {"Resources/cpu_mem_gb": cpu, "Resources/peak_gpu_mem_gb": gpu}


class Reporter:
    """Writes the status line to the console and statistics to stats.jsonl and TensorBoard."""

    def __init__(self, run_dir: Path, device: torch.device, cur_nimg: int, total_nimg: int, is_quiet: bool) -> None:
        self.run_dir, self.device, self.total_nimg = run_dir, device, total_nimg
        self.is_quiet = is_quiet  # ranks other than the first
        self.start_sec = self.tick_sec = time.monotonic()
        self.tick_nimg = cur_nimg
        self.maintenance_sec = 0.0  # images, snapshots and metrics since the last status line
        self.bar = tqdm(
            total=total_nimg,
            initial=cur_nimg,
            unit="img",
            unit_scale=True,
            leave=False,
            dynamic_ncols=True,
            disable=is_quiet or not sys.stderr.isatty(),
        )
        self.tensorboard: Any = None  # also where it is not installed
        if not is_quiet:
            forget_later_rows(run_dir / STATS_FILE, cur_nimg)
            with contextlib.suppress(ImportError):
                from torch.utils.tensorboard import SummaryWriter

                self.tensorboard = SummaryWriter(run_dir)

    def advance(self, nimg: int) -> None:
        self.bar.update(nimg)

    def close(self) -> None:
        """Remove the progress bar and finish the event file."""
        self.bar.close()
        if self.tensorboard is not None:
            self.tensorboard.close()

    def log(self, text: str) -> None:
        """Print a line without tearing the progress bar."""
        if not self.is_quiet:
            self.bar.clear()
            print(text, flush=True)
            self.bar.refresh()

    @contextlib.contextmanager
    def maintenance(self) -> Iterator[None]:
        """Count the time within as maintenance, not as training."""
        started_sec = time.monotonic()
        yield
        self.maintenance_sec += time.monotonic() - started_sec

    def rewind(self, cur_nimg: int) -> None:
        """Return to a number of images: drop the rows after it."""
        if not self.is_quiet:
            forget_later_rows(self.run_dir / STATS_FILE, cur_nimg)
        self.tick_sec, self.tick_nimg, self.maintenance_sec = time.monotonic(), cur_nimg, 0.0
        self.bar.update(cur_nimg - self.bar.n)

    def status(self, cur_nimg: int, augment_p: float, stats: dict[str, Scalar], num_nonfinite: int) -> None:
        if self.is_quiet:
            return
        now = time.monotonic()
        memory = memory_gb(self.device)
        train_sec = now - self.tick_sec - self.maintenance_sec
        sec_per_kimg = train_sec / max(cur_nimg - self.tick_nimg, 1) * 1000
        left_sec = (self.total_nimg - cur_nimg) / 1000 * sec_per_kimg
        parts = [
            f"kimg {cur_nimg / 1000:<8.1f}",
            f"time {format_duration(now - self.start_sec):<12}",
            f"sec/kimg {sec_per_kimg:<7.2f}" if cur_nimg > self.tick_nimg else "sec/kimg --     ",
            f"maintenance {self.maintenance_sec:<6.1f}",
            f"cpumem {memory['Resources/cpu_mem_gb']:<6.2f}",
            f"gpumem {memory['Resources/peak_gpu_mem_gb']:<6.2f}" if "Resources/peak_gpu_mem_gb" in memory else "",
            f"augment {augment_p:<6.3f}",
            *(f"{short} {stats[name].mean:<6.2f}" for name, short in LOSSES.items() if name in stats),
            f"nonfinite {num_nonfinite}" if num_nonfinite else "",
            f"left {format_duration(left_sec)}" if cur_nimg > self.tick_nimg else "",
        ]
        self.log("  ".join(part for part in parts if part).rstrip())
        scalars = {
            "Progress/kimg": cur_nimg / 1000,
            "Progress/augment": augment_p,
            "Progress/nonfinite_steps": num_nonfinite,
            "Timing/sec_per_kimg": sec_per_kimg,
            "Timing/maintenance_sec": self.maintenance_sec,
            **memory,
        }
        if self.tensorboard is not None:
            for name, value in {**{name: s.mean for name, s in stats.items()}, **scalars}.items():
                self.tensorboard.add_scalar(name, value, global_step=cur_nimg)
            self.tensorboard.flush()
        row = {name: plain(scalar) for name, scalar in stats.items()}
        row |= {name: plain(Scalar(1, value, 0.0)) for name, value in scalars.items()}
        whole = {"cur_nimg": cur_nimg, **row, "timestamp": time.time()}
        try:
            append_line(self.run_dir / STATS_FILE, json.dumps(whole, allow_nan=False))
        except OSError as error:
            self.log(f"Warning: {STATS_FILE} lacks a row: {error}")
        self.tick_sec, self.tick_nimg, self.maintenance_sec = now, cur_nimg, 0.0


LOSSES = {"Loss/G/loss": "G", "Loss/D/loss": "D", "Loss/r1_penalty": "r1"}  # shown in the status line


def plain(scalar: Scalar) -> dict[str, float | None]:
    """A statistic for JSON, with null for NaN and infinity, which JSON lacks."""
    mean, std = (value if math.isfinite(value) else None for value in (scalar.mean, scalar.std))
    return {"num": scalar.num, "mean": mean, "std": std}


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, whole or not at all. Raises OSError."""
    size = path.stat().st_size if path.exists() else 0
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError:
        with contextlib.suppress(OSError):
            os.truncate(path, size)
        raise


def images_of_row(line: str) -> float:
    """The number of images of a row of stats.jsonl; infinity if the row is torn or damaged."""
    try:
        return float(json.loads(line)["cur_nimg"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return math.inf


def forget_later_rows(path: Path, cur_nimg: int) -> None:
    """Drop damaged rows and those that a run wrote after the state it is resumed from; it will write them again."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    kept = [line for line in lines if images_of_row(line) <= cur_nimg]
    if kept != lines:
        with atomic_write(path, "w") as file:
            file.write("".join(line + "\n" for line in kept))
