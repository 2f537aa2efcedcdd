"""One process and two compute the same run, whoever starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
RUN = [
    "--cfg=demo", "--kimg=0.16", "--batch=8", "--batch-gpu=4", "--workers=0", "--g_dict=16,16,16", "--linformer=0", "--cond=1",
    "--set=generator.noise=false", "--set=generator.z_dim=16", "--set=generator.w_dim=16",
    "--set=discriminator.channel_base=256", "--set=discriminator.channel_max=8", "--set=discriminator.mbstd_group=4",
    "--set=loss.pl_weight=2", "--set=loss.mixing_prob=0.5", "--set=optimizer.g_lr=0.001", "--set=optimizer.d_lr=0.001",
]  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "digits.zip"
    command = [sys.executable, str(ROOT / "dataset_tool.py"), "--source=demo", f"--dest={path}", "--max-images=60"]
    subprocess.run(command, check=True, capture_output=True)
    return path


def train(digits: Path, outdir: Path, starter: list[str], *options: str) -> dict[str, torch.Tensor]:
    """Train 20 steps and return the weights of all networks by name."""
    command = [*starter, str(ROOT / "train.py"), f"--data={digits}", f"--outdir={outdir}", *RUN, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    (run_dir,) = outdir.iterdir()
    snapshot = torch.load(run_dir / "network-snapshot-000000.pkl", weights_only=True)
    assert snapshot["cur_nimg"] == 160
    return {f"{net}.{name}": value for net in ("G", "D", "G_ema") for name, value in snapshot[net].items()}


def relative_distance(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Length of the difference of all weights over their length."""
    difference = sum((ours[name] - theirs[name]).double().square().sum() for name in theirs)
    return (difference / sum(value.double().square().sum() for value in theirs.values())).sqrt().item()


def test_two_processes_equal_one(digits: Path, tmp_path: Path) -> None:
    metric = "proxy_fd_randconv_v1"
    one = train(digits, tmp_path / "one", [sys.executable], f"--metrics={metric}")
    two = train(digits, tmp_path / "two", [sys.executable], f"--metrics={metric}", "--gpus=2")
    assert relative_distance(two, one) < 1e-5
    values = []
    for name in ("one", "two"):
        (run_dir,) = (tmp_path / name).iterdir()
        (line,) = (run_dir / f"metric-{metric}.jsonl").read_text().splitlines()
        values.append(json.loads(line)["value"])
        best = run_dir / f"network-snapshot-best-{metric}.pkl"
        assert best.read_bytes() == (run_dir / "network-snapshot-000000.pkl").read_bytes()
    assert values[1] == pytest.approx(values[0], rel=1e-3)


@pytest.mark.slow
def test_torchrun_equals_our_own_launcher(digits: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ours = train(digits, tmp_path / "ours", [sys.executable], "--gpus=2")
    theirs = train(digits, tmp_path / "torchrun", torchrun)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
