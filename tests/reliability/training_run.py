"""Starts and resumes real training runs, and compares their states."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
PAUSED_TRAIN = Path(__file__).with_name("paused_train.py")
STEPS = 12
BATCH = 4
TINY = [
    "--cfg=demo", f"--kimg={STEPS * BATCH / 1000}", f"--batch={BATCH}", "--batch-gpu=2", "--workers=0", "--cond=1",
    "--aug=ada", "--g_dict=16,16,16", "--linformer=0", "--metrics=none", "--tick=0.008", "--snap=2", "--state-kimg=0.008",
    "--set=generator.z_dim=16", "--set=generator.w_dim=16", "--set=discriminator.channel_base=256",
    "--set=discriminator.channel_max=8", "--set=discriminator.mbstd_group=2", "--set=loss.pl_weight=2",
    "--set=loss.mixing_prob=0.5", "--set=optimizer.g_lr=0.001", "--set=optimizer.d_lr=0.001",
]  # fmt: skip


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT), **variables}


@dataclass
class Run:
    """A run of tiny networks in its own folder."""

    data: Path
    outdir: Path
    options: list[str] = field(default_factory=list)
    program: Path = ROOT / "train.py"

    def start(self, *options: str, starter: list[str] | None = None, **variables: str) -> subprocess.Popen[str]:
        """Start or resume training."""
        command = [*(starter or [sys.executable]), str(self.program), f"--data={self.data}", f"--outdir={self.outdir}"]
        command += [*TINY, *self.options, "--resume=latest", *options]
        return subprocess.Popen(
            command, env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def finish(self, *options: str, **variables: str) -> str:
        """Train to the end and return the output."""
        process = self.start(*options, **variables)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        return output

    @property
    def folder(self) -> Path:
        """The newest run folder; one without a state is not resumed."""
        return max(path for path in self.outdir.iterdir() if path.name[0].isdigit())

    def state(self) -> dict[str, Any]:
        """The newest training state."""
        return torch.load(self.folder / "training-state-latest.pt", weights_only=True)["state"]
