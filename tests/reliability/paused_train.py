"""train.py with pauses inside every write of a training state, so that a kill is likely to hit one."""

import io
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

import train
from dnnlib.files import atomic_write
from training.checkpoint import state_file

PAUSE_SEC = 0.1


def paused_write(path: Path, values: dict[str, Any]) -> None:
    """Half of the file, a pause, the other half, a pause before it gets its name."""
    buffer = io.BytesIO()
    torch.save(values, buffer)
    content = buffer.getvalue()
    with atomic_write(path) as file:
        for part in (content[: len(content) // 2], content[len(content) // 2 :]):
            file.write(part)
            file.flush()
            time.sleep(PAUSE_SEC)


def paused_replace(source: Path, target: Path) -> None:
    """A renaming with a pause before and after it."""
    time.sleep(PAUSE_SEC)
    os.replace(source, target)
    time.sleep(PAUSE_SEC)


if __name__ == "__main__":
    state_file.write = paused_write
    state_file.os = SimpleNamespace(replace=paused_replace)  # type: ignore[assignment]
    train.main()
