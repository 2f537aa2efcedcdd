"""The newer PyTorch of constraints-newest.txt, in an environment of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = [
    "golden",
    "torch_utils/test_grid_sample.py", "torch_utils/test_distributed.py",
    "training/test_networks.py", "training/test_phases.py", "training/test_augment.py", "training/test_loop.py",
    "metrics/test_module_detector.py", "metrics/test_path_length.py",
]  # fmt: skip


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [*map(str, command)]
    return subprocess.run(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_core_tests_pass_on_the_newer_pytorch(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    assert run(sys.executable, "-m", "venv", tmp_path / "venv").returncode == 0
    packages = ["-r", "requirements.txt", "pytest", "-c", "constraints-newest.txt"]
    installed = run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
    if installed.returncode != 0:
        pytest.skip(f"pip cannot install constraints-newest.txt here: {installed.stdout.strip().splitlines()[-1]}")
    tests = [f"tests/{name}" for name in CORE]
    done = run(python, "-m", "pytest", "-q", "-m", "not slow and not gpu", "-p", "no:cacheprovider", *tests)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " warning" not in done.stdout.splitlines()[-1], done.stdout[-3000:]
