"""The lock on a run folder: one process trains in it at a time."""

import contextlib
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import IO

LOCK_FILE = "run.lock"


class RunLock:
    """Held by the first rank while it trains in a folder; the system releases it when the process ends, however it ends."""

    def __init__(self) -> None:
        self._file: IO[str] | None = None

    def acquire(self, run_dir: Path) -> None:
        """Lock a run folder. Raises ValueError naming host, process and start where another process trains in it."""
        path = run_dir / LOCK_FILE
        self.release()
        file = open(path, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115  # open as long as the lock is held
        file.seek(0)
        owner = file.read()
        try:
            fcntl.lockf(
                file, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # held by the process, over NFS too, and not by its children
        except BlockingIOError:
            file.close()
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
        self._file = file

    def release(self) -> None:
        """Unlock the folder, if one is locked."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.truncate(0)
                self._file.close()
            self._file = None

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def describe(owner: str) -> str:
    """The process that a lock file names."""
    try:
        values = json.loads(owner)
        return f"process {values['pid']} on {values['host']}, since {values['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def is_own(owner: str) -> bool:
    """Whether a lock file names this process."""
    return f'"pid": {os.getpid()},' in owner and f'"host": "{socket.gethostname()}"' in owner
