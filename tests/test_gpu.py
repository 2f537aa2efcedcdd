"""What only a machine with a GPU can show: `make test-gpu`."""

from pathlib import Path

import pytest
import torch
from tiny_runs import train

from torch_utils.ops import native
from training.checkpoint.snapshot import load_discriminator, load_generator
from training.checkpoint.state_file import find_state
from training.config import DatasetSpec, RunConfig
from training.data.stream import ImageDataset
from training.loop import step
from training.networks.discriminator import Discriminator
from training.run.training_run import TrainingRun

GPU = torch.device("cuda", 0)
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")]


def test_training_and_resume_with_every_phase(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    config = tiny_config.changed(data={"cond": True, "workers": 1})
    config = config.changed(schedule={"state_kimg": 0.008, "tick_kimg": 0.048})
    (tmp_path / "run").mkdir()
    stopped = TrainingRun(config, ImageDataset(tiny_data, use_labels=True), tmp_path / "run", GPU)
    for _ in range(3):
        step(stopped, stopped.next_batch())
    stopped.save_state()
    assert find_state(tmp_path / "run")["state"]["stats"]  # between two ticks
    loop = train(config, tiny_data, tmp_path / "run", device=GPU)
    assert loop.state.cur_nimg == 48
    assert all(p.isfinite().all() for p in loop.state.G.parameters())


def test_snapshots_compute_the_same_on_both_devices(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    config = tiny_config.changed(data={"cond": True})
    train(config, tiny_data, tmp_path / "run", device=GPU)
    path = tmp_path / "run" / "network-snapshot-000000.pkl"
    devices = {t.device.type for t in torch.load(path, weights_only=True)["G_ema"].values()}
    assert devices == {"cpu"}  # it opens on any machine
    z, c = torch.randn(4, 8), torch.eye(3)[torch.arange(4) % 3]
    images = [
        load_generator(path, device)(z.to(device), c.to(device), noise_mode="const") for device in ("cpu", "cuda")
    ]
    assert (images[0] - images[1].cpu()).abs().max() < 1e-4 * images[0].abs().max()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        logits = [load_discriminator(path, device)(images[0].to(device), c.to(device)) for device in ("cpu", "cuda")]
    assert (logits[0] - logits[1].cpu()).abs().max() < 1e-3 * logits[0].abs().max()


def test_r1_gradients_are_the_same_with_compiled_operators(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    """The longest chain of derivatives in training: parameters of the squared gradient of the logits."""
    torch.manual_seed(0)
    D = Discriminator(tiny_config.discriminator, tiny_spec).cuda()
    images = torch.randn(8, 3, 16, 16, device="cuda")
    results = []
    for mode in ("auto", "reference"):
        native.prepare(torch.device("cuda"), mode)
        leaf = images.clone().requires_grad_()
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            (gradient,) = torch.autograd.grad(D(leaf).sum(), leaf, create_graph=True)
            results.append(torch.autograd.grad(gradient.square().sum(), list(D.parameters()), allow_unused=True))
    for expected, actual in zip(*results, strict=True):
        assert (expected is None) == (actual is None) or not (actual if expected is None else expected).any()
        if expected is not None and actual is not None:
            assert (expected - actual).abs().max() <= 1e-4 * expected.abs().max()
