"""Images, and the uninterrupted run that all others are compared with."""

import subprocess
import sys
from pathlib import Path

import pytest
from training_run import ROOT, Run, environment


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 60 demo digits."""
    path = tmp_path_factory.mktemp("digits") / "digits.zip"
    command = [sys.executable, str(ROOT / "dataset_tool.py"), "--source=demo", f"--dest={path}", "--max-images=60"]
    subprocess.run(command, check=True, capture_output=True, env=environment())
    return path


@pytest.fixture(scope="session")
def whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that nothing interrupted."""
    run = Run(digits, tmp_path_factory.mktemp("whole"))
    run.finish()
    return run
