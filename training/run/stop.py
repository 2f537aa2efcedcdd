"""Stops a run early, with its state saved: Ctrl-C, SIGTERM, SIGHUP (closed terminal), --stop-after."""

import enum
import signal
import threading
import time
from types import FrameType
from typing import Any

import torch

from torch_utils import distributed


class Stop(enum.IntEnum):
    """Why a run stops early; of several reasons, the largest is reported."""

    NO = 0
    TIME = 1
    HUNG_UP = 2
    TERMINATED = 3
    INTERRUPTED = 4
    ORPHANED = 5  # torchrun, or the program that started the processes, is gone
    FAILED = 6  # one of the processes cannot continue

    @property
    def text(self) -> str:
        return {
            Stop.TIME: "the time of --stop-after is over",
            Stop.HUNG_UP: "SIGHUP, the terminal or session was closed",
            Stop.TERMINATED: "SIGTERM",
            Stop.INTERRUPTED: "Ctrl-C",
            Stop.ORPHANED: "the program that started one of the processes (torchrun) is gone",
        }[self]


SIGNALS = {signal.SIGINT: Stop.INTERRUPTED, signal.SIGTERM: Stop.TERMINATED, signal.SIGHUP: Stop.HUNG_UP}


class Stopped(Exception):
    """A rank was asked to stop or cannot continue: raised on every rank, between two steps."""

    def __init__(self, reason: Stop, failure: Exception | None = None) -> None:
        super().__init__(reason.name)
        self.reason = reason
        self.failure = failure  # of this rank


class Diverged(Exception):
    """Too many steps in a row had losses or gradients that were not finite."""


class StopRequest:
    """Notes signals while it is entered: Ctrl-C, SIGTERM and SIGHUP ask to stop, a second Ctrl-C interrupts at once."""

    def __init__(self, deadline_sec: float | None = None) -> None:
        """Ask to stop at a time of the monotonic clock, too; None = never."""
        self._deadline_sec = deadline_sec
        self._signalled = Stop.NO
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # elsewhere signals cannot be handled
            for number in SIGNALS:
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # under nohup, train on
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def reason(self) -> Stop:
        """Why this process should stop; NO if it should not."""
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
        self._signalled = max(self._signalled, SIGNALS[signal.Signals(number)])
