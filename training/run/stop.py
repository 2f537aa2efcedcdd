"""What ends a run early and in order: Ctrl-C, SIGTERM, and the end of the time that it was granted."""

import enum
import signal
import threading
import time
from types import FrameType
from typing import Any

import torch

from torch_utils import distributed


class Stop(enum.IntEnum):
    """Why a run stops before its end; of several reasons, the largest counts."""

    NO = 0
    TIME = 1
    TERMINATED = 2
    INTERRUPTED = 3
    ORPHANED = 4  # torchrun, or the program that started the processes, is gone
    FAILED = 5  # one of the processes cannot go on

    @property
    def text(self) -> str:
        """The reason for people."""
        return {
            Stop.TIME: "the time of --stop-after is over",
            Stop.TERMINATED: "SIGTERM",
            Stop.INTERRUPTED: "Ctrl-C",
            Stop.ORPHANED: "the program that started one of the processes (torchrun) is gone",
        }[self]


class Stopped(Exception):
    """A rank was asked to stop or cannot go on: raised on every rank, between two steps."""

    def __init__(self, reason: Stop, failure: Exception | None = None) -> None:
        super().__init__(reason.name)
        self.reason = reason
        self.failure = failure  # of this rank


class Diverged(Exception):
    """Too many steps in a row had losses or gradients that were not finite."""


class StopRequest:
    """Notes signals while it is entered; the second Ctrl-C interrupts at once, the first and SIGTERM only ask."""

    def __init__(self, after_sec: float | None = None) -> None:
        self._deadline_sec = None if after_sec is None else time.monotonic() + after_sec
        self._signalled = Stop.NO
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # elsewhere signals cannot be handled
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def reason(self) -> Stop:
        """Why this process should stop, if it should."""
        if distributed.is_orphan():
            return Stop.ORPHANED
        is_over = self._deadline_sec is not None and time.monotonic() >= self._deadline_sec
        return max(self._signalled, Stop.TIME if is_over else Stop.NO)

    def agreed(self, has_failed: bool = False) -> Stop:
        """The largest reason of all processes, the same on each; call it on every process."""
        reason = Stop.FAILED if has_failed else self.reason
        return Stop(int(distributed.all_reduce_max(torch.tensor(int(reason)))))

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signalled is Stop.INTERRUPTED:
            raise KeyboardInterrupt
        self._signalled = max(self._signalled, Stop.INTERRUPTED if number == signal.SIGINT else Stop.TERMINATED)
