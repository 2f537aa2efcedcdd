"""The record of a report: what became of every part, written as report.json and report.md after each of them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu_report.child import Outcome
from benchmarks.gpu_report.page import page
from dnnlib.files import atomic_write

JSON_FILE, PAGE_FILE, LOG_FILE = "report.json", "report.md", "console.log"
LOSSES_FILE, CURVE_FILE, GRID_FILE, REALS_FILE = "losses.png", "training.png", "grid.png", "reals.png"
FILES = (JSON_FILE, PAGE_FILE, LOG_FILE, LOSSES_FILE, CURVE_FILE, GRID_FILE, REALS_FILE)  # all that a report writes

WAITING, RUNNING, DONE, FAILED, CUT, SKIPPED = "waiting", "running", "done", "failed", "out of time", "skipped"
UNFINISHED = "still running, or interrupted"  # the whole report
MAX_NOTE = 120  # characters


@dataclass
class Entry:
    """What became of one part."""

    name: str
    title: str
    status: str = WAITING
    note: str = ""  # its result in a line, or why there is none
    command: str = ""
    seconds: float = 0.0
    limit_sec: float = 0.0
    exit_code: int | None = None  # None = it did not end by itself
    values: dict[str, Any] = field(default_factory=dict)  # what was measured
    output: list[str] = field(default_factory=list)  # last lines


class Record:
    """All entries and facts of a report, and the folder they are written to."""

    def __init__(self, folder: Path, facts: dict[str, str], minutes: float, entries: Sequence[Entry]) -> None:
        self.folder, self.facts, self.minutes = folder, facts, minutes
        self.entries = list(entries)
        self.status = UNFINISHED
        self.seconds = 0.0

    def plain(self) -> dict[str, Any]:
        """Return the record as JSON has it."""
        return {
            "format": 1,
            "status": self.status,
            "facts": self.facts,
            "minutes": self.minutes,
            "seconds": round(self.seconds, 1),
            "files": sorted(name for name in FILES if (self.folder / name).exists()),
            "parts": [asdict(entry) for entry in self.entries],
        }

    def write(self) -> None:
        """Write both files; each is whole at any time."""
        plain = self.plain()
        with atomic_write(self.folder / JSON_FILE, "w") as file:
            file.write(json.dumps(plain, indent=1) + "\n")
        with atomic_write(self.folder / PAGE_FILE, "w") as file:
            file.write(page(plain))


def settle(entry: Entry, outcome: Outcome, values: dict[str, Any], max_lines: int) -> None:
    """Note how a part ended and what it measured."""
    lines = readable_lines(outcome.output)
    entry.status = CUT if outcome.exit_code is None else FAILED if outcome.exit_code else DONE
    entry.seconds, entry.exit_code, entry.values = round(outcome.seconds, 1), outcome.exit_code, values
    entry.output = lines[-max_lines:]
    entry.note = str(values.get("summary") or "")
    if entry.status == FAILED:
        entry.note = f"exit code {outcome.exit_code}: {entry.note or last_line(lines)}"
    entry.note = entry.note[:MAX_NOTE]


def readable_lines(text: str) -> list[str]:
    """Return the lines of an output without what progress bars wrote over, and without empty ones at its end."""
    lines = [line.rpartition("\r")[2].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def last_line(lines: Sequence[str]) -> str:
    """Return the last line with something in it."""
    return next((line for line in reversed(lines) if line.strip()), "")
