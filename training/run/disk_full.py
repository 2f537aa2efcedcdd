"""Writing to a disk that may be full: say so, wait, try again."""

import errno
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dnnlib.text import format_bytes, format_duration

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(OSError):
    """There is no space, and none was made in time; the message says where."""


@dataclass(frozen=True)
class DiskFullRetry:
    """How a run behaves where a file cannot be written for lack of space."""

    retries: int  # after the first attempt
    wait_sec: float  # before each
    say: Callable[[str], None]  # tells people
    is_asked_to_stop: Callable[[], bool]  # looked at while waiting

    def write(self, write: Callable[[], None], path: Path) -> None:
        """Call `write`, which makes a file of this name; again where the disk is full.

        Raises DiskFullError after the last attempt, or when asked to stop meanwhile.
        """
        for attempt in range(self.retries + 1):
            try:
                write()
                return
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                problem = (
                    f"the disk is full, {path} was not written ({free_space(path)} free); what was there is intact"
                )
                if attempt == self.retries:
                    raise DiskFullError(
                        error.errno, f"{problem}. Free some space and type the same command with --resume=latest"
                    ) from error
                self.say(
                    f"Warning: {problem}. Free some space: trying again in {format_duration(self.wait_sec)}, "
                    f"{self.retries - attempt} times more."
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


def free_space(path: Path) -> str:
    """The free space where a file lies or will lie, for people."""
    return format_bytes(shutil.disk_usage(path.parent).free)
