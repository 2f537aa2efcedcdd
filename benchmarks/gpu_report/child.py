"""Runs a command in a separate process that cannot outlast its time, nor the program that started it."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
GRACE_SEC = 12.0  # between Ctrl-C, after which a program may tidy up, and its end by force

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    exit_code: int | None  # None = it was ended because its time was over; negative = by this signal
    seconds: float
    output: str  # stdout and stderr together

    @property
    def lines(self) -> list[str]:
        """The lines of the output without what progress bars wrote over, and without empty ones at its end."""
        lines = [line.rpartition("\r")[2].rstrip() for line in self.output.replace("\r\n", "\n").split("\n")]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def last_line(self) -> str:
        """The last line with something in it."""
        return self.lines[-1] if self.lines else ""


def run(command: Sequence[str], limit_sec: float, log: Path, environment: dict[str, str]) -> Outcome:
    """Run a command in the project's folder; it and all it started are gone on return, however this function ends.

    Args:
        command: Program and arguments.
        limit_sec: After which it gets Ctrl-C, and is killed GRACE_SEC later.
        log: File that its output is appended to.
        environment: All environment variables.
    """
    started_sec = time.monotonic()
    with open(log, "ab") as file:
        begin = file.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=_prepare,
        )  # fmt: skip
        try:
            exit_code: int | None = process.wait(limit_sec)
        except subprocess.TimeoutExpired:
            exit_code = None
            _signal_group(process, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SEC)
        finally:
            _signal_group(process, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SEC)  # a process that a broken driver holds cannot even be killed
    with open(log, "rb") as file:
        file.seek(begin)
        output = file.read().decode("utf-8", errors="replace")
    return Outcome(exit_code, time.monotonic() - started_sec, output)


def _prepare() -> None:
    """In the new process: Ctrl-C works even in background jobs, and the kernel ends it with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process and all that it started in its session; those may outlast it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
