"""The uninterrupted run that all others are compared with."""

from pathlib import Path

import pytest
from training_run import Run


@pytest.fixture(scope="session")
def whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run without interruption."""
    run = Run(digits, tmp_path_factory.mktemp("whole"))
    run.finish()
    return run
