"""Shares out the time of a report: every part gets what the parts after it can spare."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

FULL_MINUTES = 10.0  # the report that the times of the parts are stated for
MARGIN_SEC = 8.0  # for the start and the end of the report itself


@dataclass(frozen=True)
class Need:
    """The time of a part in a report of FULL_MINUTES, in seconds."""

    least: float  # kept for it while earlier parts run; with less it is skipped
    most: float  # after which it is ended


class Budget:
    """The time that is left, and what of it the next part may take."""

    def __init__(self, minutes: float, grace_sec: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.minutes, self.grace_sec, self.clock = minutes, grace_sec, clock
        self.start_sec = clock()
        self.end_sec = self.start_sec + minutes * 60 - MARGIN_SEC

    @property
    def used_sec(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.start_sec

    @property
    def left_sec(self) -> float:
        """Seconds in which a part may run, if it needs the whole grace to end afterwards."""
        return max(self.end_sec - self.grace_sec - self.clock(), 0.0)

    def limit_sec(self, need: Need, later: Sequence[Need]) -> float:
        """Seconds that a part may take; 0 = skip it, too little time is left.

        The least times of later parts are kept for them, but a part's own least time comes before theirs.
        """
        scale = self.minutes / FULL_MINUTES
        least, reserved = need.least * scale, sum(other.least for other in later) * scale
        limit = min(need.most * scale, max(self.left_sec - reserved, min(least, self.left_sec)))
        return limit if limit >= least and limit > 0 else 0.0
