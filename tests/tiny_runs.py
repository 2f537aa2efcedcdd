"""Whole runs of small networks on the CPU, in this process, and comparisons of their states."""

from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

import train as program
from training.checkpoint.state_file import find_state
from training.config import RunConfig
from training.data.stream import ImageDataset
from training.latents import Latents
from training.losses import build_phases
from training.phases import MicroBatch, Phase
from training.run.training_run import TrainingRun
from training.state import TrainState
from training.supervisor import supervise

CPU = torch.device("cpu")
OPTIONS = [
    "--cfg=demo", "--g_dict=16,16", "--num_layers=1,1", "--batch=8", "--workers=0", "--kimg=0.008", "--metrics=none",
    "--set=discriminator.channel_max=8", "--set=discriminator.mbstd_group=4",
]  # fmt: skip


def start(config: RunConfig, data: Path, run_dir: Path, device: torch.device = CPU, **settings: Any) -> TrainingRun:
    """A run before its first step, or resumed from what is in the folder; `settings` are others of TrainingRun."""
    run_dir.mkdir(exist_ok=True)
    dataset = ImageDataset(data, use_labels=config.data.cond)
    return TrainingRun(config, dataset, run_dir, device, find_state(run_dir), **settings)


def train(
    config: RunConfig, data: Path, run_dir: Path, kimg: float | None = None, device: torch.device = CPU
) -> TrainingRun:
    """Train, or resume what is in the folder, up to so many kimg."""
    if kimg is not None:
        config = config.changed(schedule={"kimg": kimg})
    run = start(config, data, run_dir, device)
    supervise(run)
    return run


def train_script(data: Path, outdir: Path, *options: str) -> Result:
    """What train.py does in this process: a step on images of 16x16 px, unless options say otherwise."""
    return CliRunner().invoke(program.main, [f"--data={data}", f"--outdir={outdir}", *OPTIONS, *options])


def train_in_parts(config: RunConfig, data: Path, folder: Path, kimg: float = 0.032) -> tuple[TrainingRun, TrainingRun]:
    """An uninterrupted run in folder/whole and one that was stopped half-way in folder/parts: bit for bit the same."""
    whole = train(config, data, folder / "whole", kimg)
    train(config, data, folder / "parts", kimg / 2)
    resumed = train(config, data, folder / "parts", kimg)
    assert_same(resumed.state.state_dict(), whole.state.state_dict())
    return whole, resumed


def without_randomness(config: RunConfig) -> RunConfig:
    """Without noise, augmentation and comparison of images, and so the same in micro-batches of any size."""
    return config.changed(generator={"noise": False}, augment={"mode": "noaug"}, discriminator={"mbstd_group": 1})


def assert_same(ours: Any, theirs: Any, where: str = "state") -> None:
    """Bit for bit, through nested dicts and lists."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_same(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, list | tuple):
        for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(a, b, f"{where}[{index}]")
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    else:
        assert ours == theirs, where


def phase_of(state: TrainState, name: str) -> Phase:
    return next(phase for phase in build_phases(state) if phase.name == name)


def gradients(value: Tensor, network: nn.Module) -> dict[str, Tensor]:
    """The gradients of the parameters that a value depends on, by name."""
    names, parameters = zip(*network.named_parameters(), strict=True)
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    return {name: grad for name, grad in zip(names, found, strict=True) if grad is not None}


def micro_batch(
    seed: int | None = None, count: int = 4, dtype: torch.dtype = torch.float32, mix: bool = False, z_dim: int = 8,
    size: int = 16,
) -> MicroBatch:  # fmt: skip
    """Noise as images of so many px, without labels, drawn by a seed or by the global generator."""
    drawn = None if seed is None else torch.Generator().manual_seed(seed)
    z, mix_z = (torch.randn(count, z_dim, dtype=dtype, generator=drawn) for _ in range(2))
    images = torch.randn(count, 3, size, size, dtype=dtype, generator=drawn)
    c = torch.zeros(count, 0, dtype=dtype)
    return MicroBatch(images, c, Latents(z, c, mix_z if mix else None, 2, seed=7))
