"""train.py with pauses inside every write of a training state, so that a kill is likely to hit one."""

import os
import time
from pathlib import Path
from typing import Any

import train
from training.checkpoint import files as checkpoint

PAUSE_SEC = 0.1


def paused_write(path: Path, values: dict[str, Any]) -> None:
    """Half of the file, a pause, the other half, a pause before it gets its name."""
    with checkpoint.atomic_write(path) as file:
        whole = Path(f"{path}.whole")
        checkpoint.torch.save(values, whole)
        content = whole.read_bytes()
        whole.unlink()
        for part in (content[: len(content) // 2], content[len(content) // 2 :]):
            file.write(part)
            file.flush()
            time.sleep(PAUSE_SEC)


def paused_replace(source: Path, target: Path) -> None:
    """A renaming with a pause before and after it."""
    time.sleep(PAUSE_SEC)
    os.rename(source, target)
    time.sleep(PAUSE_SEC)


if __name__ == "__main__":
    checkpoint.write = paused_write

    class PausedOs:
        """The module os with slow renamings."""

        replace = staticmethod(paused_replace)
        link = staticmethod(os.link)

    checkpoint.os = PausedOs  # type: ignore[assignment]
    train.main()
