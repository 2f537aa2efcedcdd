"""Trains a preset for some steps in one mode and writes losses, speed and memory: one process of the side-by-side part."""

import json
import math
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.modes import Mode, parse_mode
from benchmarks.timing import now
from dnnlib.files import atomic_write
from torch_utils.distributed import local_device
from torch_utils.ops import native
from torch_utils.rng import seed_step
from torch_utils.stats import Scalar
from training.config import RunConfig
from training.data.stream import ImageDataset
from training.ema import ema_beta, update_ema
from training.plan.probe import Probe
from training.precision import resolve_precision, set_arithmetic
from training.presets import preset
from training.schedule import highest

EVERY = 5  # steps between two rows
WARM_UP_STEPS = EVERY  # in which networks are compiled, algorithms chosen and graphs recorded
LOSSES = {"G": "Loss/G/loss", "D": "Loss/D/loss", "r1": "Loss/r1_penalty"}  # column of a row -> statistic


class Training:
    """Iterations of a configuration on the first images of a data set, the same in every mode."""

    def __init__(self, config: RunConfig, dataset: ImageDataset, device: torch.device, steps: int) -> None:
        self.config, self.device = config, device
        self.probe = Probe(config, dataset, device, passes=steps)  # one batch of images and latents for each step
        self.state = self.probe.state
        self.state.cur_nimg = 0  # as a run begins
        self.rows: list[dict[str, float | None]] = []
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self.start_sec = now(self.device)

    def step(self, index: int) -> None:
        """One iteration: every phase that is due, and the average of the weights. The augmentation stays as it is."""
        state, batch = self.state, self.config.schedule.batch
        seed_step(self.config.schedule.seed, state.cur_nimg, 0)
        for phase in self.probe.phases:
            if phase.is_due(state.batch_index):
                phase.step([self.probe.batches[index]])
        ema = self.config.ema
        update_ema(state.G_ema, state.G, ema_beta(batch, state.cur_nimg, highest(ema.half_lives[0]) * 1000, ema.rampup))
        state.cur_nimg += batch
        state.finite.end_step()

    def add_row(self, step: int) -> None:
        """Note the mean losses since the row before, and the time since the start; waits for the device."""
        found = self.state.stats.collect()
        losses = {column: finite_mean(found.get(name)) for column, name in LOSSES.items()}
        self.rows.append({"step": step, **losses, "sec": now(self.device) - self.start_sec})

    def result(self) -> dict[str, Any]:
        """Return all that is known so far, as plain values."""
        steady, start_up_sec = steady_sec(self.rows)
        return {
            "rows": self.rows,
            "images_per_sec": self.config.schedule.batch / steady if steady else None,
            "start_up_sec": start_up_sec,
            "nonfinite_steps": self.state.finite.total_bad,
            **peak_memory(self.device),
        }


def steady_sec(rows: list[dict[str, float | None]]) -> tuple[float | None, float | None]:
    """Seconds per step after the warm-up, and those that the warm-up took beyond its steps; None = not known yet."""
    times = {int(row["step"] or 0): row["sec"] or 0.0 for row in rows}
    last = max(times, default=0)
    if WARM_UP_STEPS not in times or last <= WARM_UP_STEPS:
        return None, None
    steady = (times[last] - times[WARM_UP_STEPS]) / (last - WARM_UP_STEPS)
    return steady, max(times[WARM_UP_STEPS] - WARM_UP_STEPS * steady, 0.0)


def finite_mean(scalar: Scalar | None) -> float | None:
    """Return the mean of a statistic; None where there is none, or it is not finite, which JSON cannot say."""
    return scalar.mean if scalar is not None and math.isfinite(scalar.mean) else None


def peak_memory(device: torch.device) -> dict[str, float | None]:
    """Return the most memory so far, in MB: of tensors and of PyTorch's pool on a GPU, of the whole process on the CPU."""
    if device.type == "cuda":
        allocated, reserved = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        return {"peak_mb": allocated / 1e6, "reserved_mb": reserved / 1e6}
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, "reserved_mb": None}


def prepare(mode: Mode, ops: str, device: torch.device) -> None:
    """Set PyTorch's switches and the operators as train.py does."""
    torch.backends.cudnn.benchmark = True
    set_arithmetic(resolve_precision(mode.precision, device))
    native.prepare(device, ops)


def configure(name: str, mode: Mode, dataset: ImageDataset, batch: int | None, seed: int) -> RunConfig:
    """Return the preset in this mode; raises ConfigError where images and batch do not suit it."""
    config = preset(name, dataset.spec)
    schedule = replace(config.schedule, batch=batch or config.schedule.batch, batch_gpu=None, seed=seed)
    config = replace(config, schedule=schedule, performance=mode.performance)
    config.check(dataset.spec)
    return config


@click.command()
@click.option("--mode", required=True, help="As benchmarks/train_step.py --modes names it.")
@click.option("--ops", type=click.Choice(native.MODES), required=True)
@click.option("--data", required=True, type=click.Path(exists=True))
@click.option("--cfg", required=True, help="Preset.")
@click.option("--batch", type=click.IntRange(1), help="[default: preset]")
@click.option("--steps", type=click.IntRange(1), required=True)
@click.option("--seed", type=click.IntRange(0), default=0)
@click.option("--json", "json_path", required=True, type=click.Path(path_type=Path))
def main(mode: str, ops: str, data: str, cfg: str, batch: int | None, steps: int, seed: int, json_path: Path) -> None:
    """Train for some steps; the file is written anew with every row, so that it has something whenever this ends."""
    device = local_device()
    prepare(parse_mode(mode), ops, device)
    dataset = ImageDataset(data, seed=seed)
    training = Training(configure(cfg, parse_mode(mode), dataset, batch, seed), dataset, device, steps)
    for index in range(steps):
        training.step(index)
        if index == 0 or (index + 1) % EVERY == 0 or index + 1 == steps:
            training.add_row(index + 1)
            with atomic_write(json_path, "w") as file:
                json.dump(training.result(), file, allow_nan=False)
    click.echo(json.dumps({name: value for name, value in training.result().items() if name != "rows"}))


if __name__ == "__main__":
    main()
