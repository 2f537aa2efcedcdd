"""Writes to a disk that may be full: warn, wait, retry."""

import errno
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dnnlib.text import format_bytes, format_duration

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(OSError):
    """The disk stayed full; the message names the path."""


@dataclass(frozen=True)
class DiskFullRetry:
    """Retries a write while the disk is full."""

    retries: int  # after the first attempt
    wait_sec: float  # before each
    log: Callable[[str], None]
    is_asked_to_stop: Callable[[], bool]  # polled while waiting

    def write(self, write: Callable[[], None], path: Path) -> None:
        """Call `write`, which writes `path`; retry while the disk is full.

        Raises DiskFullError after the last attempt, or when asked to stop while waiting.
        """
        for attempt in range(self.retries + 1):
            try:
                write()
                return
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                free = format_bytes(shutil.disk_usage(path.parent).free)
                problem = f"the disk is full, {path} was not written ({free} free); existing files are intact"
                if attempt == self.retries:
                    raise DiskFullError(
                        error.errno, f"{problem}. Free some space and run the same command with --resume=latest"
                    ) from error
                self.log(
                    f"Warning: {problem}. Free some space: retrying in {format_duration(self.wait_sec)}, "
                    f"{self.retries - attempt} more times."
                )
                if self._wait():
                    raise DiskFullError(error.errno, f"{problem}. Stopped while waiting for space") from error

    def _wait(self) -> bool:
        """Wait; return at once with True when asked to stop."""
        end_sec = time.monotonic() + self.wait_sec
        while (left_sec := end_sec - time.monotonic()) > 0:
            if self.is_asked_to_stop():
                return True
            time.sleep(min(left_sec, 0.2))
        return False
