"""The lock on a run folder: one process trains in it at a time."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

LOCK_FILE = "run.lock"


@contextlib.contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Lock a run folder; the system releases it when the process ends, however it ends.

    Raises ValueError naming host, process and start where another process trains in it.
    """
    with open(run_dir / LOCK_FILE, "a+", encoding="utf-8", errors="replace") as file:
        file.seek(0)
        owner = file.read()
        try:  # held by the process, over NFS too, and not by its children
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{run_dir} is in use: {describe(owner)}, trains in it. Stop that process, or start another run (without "
                f"--resume=latest)"
            ) from None
        except OSError as error:  # a file system without locks
            used_by = f"; it was in use by {describe(owner)}" if owner and not is_own(owner) else ""
            print(
                f"Warning: {run_dir} cannot be locked ({error.strerror}){used_by}. Do not resume it twice at the same time."
            )
        else:
            if owner and not is_own(owner):
                print(f"Taking over {run_dir} from {describe(owner)}, which no longer holds its lock.")
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%F %T %z")}))
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                file.truncate(0)


def describe(owner: str) -> str:
    """The process that a lock file names."""
    try:
        values = json.loads(owner)
        return f"process {values['pid']} on {values['host']}, since {values['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def is_own(owner: str) -> bool:
    return f'"pid": {os.getpid()},' in owner and f'"host": "{socket.gethostname()}"' in owner
