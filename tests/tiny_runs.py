"""Whole runs of small networks on the CPU, in this process, and comparisons of their states."""

from pathlib import Path
from typing import Any

import torch

from training.checkpoint.state_file import find_state
from training.config import RunConfig
from training.data.stream import ImageDataset
from training.latents import Latents
from training.phases import MicroBatch
from training.run.training_run import TrainingRun
from training.supervisor import supervise

CPU = torch.device("cpu")


def train(
    config: RunConfig, data: Path, run_dir: Path, kimg: float | None = None, device: torch.device = CPU
) -> TrainingRun:
    """Train, or resume what is in the folder, up to so many kimg."""
    run_dir.mkdir(exist_ok=True)
    if kimg is not None:
        config = config.changed(schedule={"kimg": kimg})
    dataset = ImageDataset(data, use_labels=config.data.cond)
    run = TrainingRun(config, dataset, run_dir, device, find_state(run_dir))
    supervise(run)
    return run


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


def micro_batch(
    seed: int | None = None, count: int = 4, dtype: torch.dtype = torch.float32, mix: bool = False
) -> MicroBatch:
    """Noise as images of 16x16 px, without labels, drawn by a seed or by the global generator."""
    drawn = None if seed is None else torch.Generator().manual_seed(seed)
    z, mix_z = (torch.randn(count, 8, dtype=dtype, generator=drawn) for _ in range(2))
    images = torch.randn(count, 3, 16, 16, dtype=dtype, generator=drawn)
    c = torch.zeros(count, 0, dtype=dtype)
    return MicroBatch(images, c, Latents(z, c, mix_z if mix else None, 2, seed=7))
