"""What only a machine with a GPU can show: `make test-gpu`."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training.checkpoint import find_state, load_discriminator, load_generator
from training.config import RunConfig
from training.dataset import ImageDataset
from training.loop import TrainingLoop

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")]


def train(config: RunConfig, data: Path, run_dir: Path, saved: dict | None = None) -> TrainingLoop:
    run_dir.mkdir(exist_ok=True)
    loop = TrainingLoop(config, ImageDataset(data, use_labels=True), run_dir, torch.device("cuda", 0), saved)
    loop.run()
    return loop


def test_training_and_resume_with_every_phase(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    config = replace(tiny_config, data=replace(tiny_config.data, cond=True, workers=1))
    config = replace(config, schedule=replace(config.schedule, state_kimg=0.008, tick_kimg=0.048))
    (tmp_path / "run").mkdir()
    stopped = TrainingLoop(config, ImageDataset(tiny_data, use_labels=True), tmp_path / "run", torch.device("cuda", 0))
    batches = stopped.real_batches()
    for _ in range(3):
        stopped.maintain()
        stopped.step(next(batches))
    stopped.maintain()
    saved = find_state(tmp_path / "run")
    assert saved is not None
    assert saved["state"]["stats"]  # between two ticks
    loop = train(config, tiny_data, tmp_path / "run", saved["state"])
    assert loop.state.cur_nimg == 48
    assert all(p.isfinite().all() for p in loop.state.G.parameters())


def test_snapshots_compute_the_same_on_both_devices(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    config = replace(tiny_config, data=replace(tiny_config.data, cond=True))
    train(config, tiny_data, tmp_path / "run")
    path = tmp_path / "run" / "network-snapshot-000000.pkl"
    z, c = torch.randn(4, 8), torch.eye(3)[torch.arange(4) % 3]
    images = [
        load_generator(path, device)(z.to(device), c.to(device), noise_mode="const") for device in ("cpu", "cuda")
    ]
    assert (images[0] - images[1].cpu()).abs().max() < 1e-4 * images[0].abs().max()
    logits = [load_discriminator(path, device)(images[0].to(device), c.to(device)) for device in ("cpu", "cuda")]
    assert (logits[0] - logits[1].cpu()).abs().max() < 1e-3 * logits[0].abs().max()
