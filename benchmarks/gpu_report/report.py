"""A report in the making: runs its parts one after the other, and writes report.json and report.md after each of them."""

import json
import shlex
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from benchmarks.gpu_report.budget import Budget
from benchmarks.gpu_report.child import Outcome, run
from benchmarks.gpu_report.page import page
from benchmarks.gpu_report.parts import IMAGE_FILES, Part
from dnnlib.files import atomic_write

JSON_FILE, PAGE_FILE, LOG_FILE = "report.json", "report.md", "console.log"
FILES = (JSON_FILE, PAGE_FILE, LOG_FILE, *IMAGE_FILES)  # all that a report writes

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

    def settle(self, outcome: Outcome, values: dict[str, Any], max_lines: int) -> None:
        """Note how the part ended and what it measured."""
        self.status = CUT if outcome.exit_code is None else FAILED if outcome.exit_code else DONE
        self.seconds, self.exit_code, self.values = round(outcome.seconds, 1), outcome.exit_code, values
        self.output = outcome.lines[-max_lines:]
        note = str(values.get("summary") or "")
        if self.status == FAILED:
            note = f"exit code {outcome.exit_code}: {note or outcome.last_line}"
        self.note = note[:MAX_NOTE]


class Report:
    """All parts and facts of a report, and the folder that it is written to."""

    def __init__(
        self,
        folder: Path,
        facts: dict[str, str],
        budget: Budget,
        parts: list[Part],
        work: Path,  # folder of data set, runs and compiled code, removed at the end
        environment: dict[str, str],
    ) -> None:
        self.folder, self.facts, self.budget = folder, facts, budget
        self.parts, self.work, self.environment = parts, work, environment
        self.entries = [Entry(part.name, part.title) for part in parts]
        self.status = UNFINISHED

    def run(self) -> None:
        """Run one part after the other; what goes wrong in one is noted, and the next begins."""
        self.write()
        for index, (part, entry) in enumerate(zip(self.parts, self.entries, strict=True)):
            later = [other.need for other in self.parts[index + 1 :] if not other.why_skip]
            limit_sec = 0.0 if part.why_skip else self.budget.limit_sec(part.need, later)
            if limit_sec == 0:
                entry.status, entry.note = SKIPPED, part.why_skip or "no time left"
            else:
                self.run_part(part, entry, limit_sec)
            self.write()
            note = f", {entry.note}" if entry.note else ""
            click.echo(f"{self.budget.used_sec:6.0f} s  {entry.title}: {entry.status}{note}")
        self.status = DONE
        self.write()

    def run_part(self, part: Part, entry: Entry, limit_sec: float) -> None:
        """Run a part, and read what it leaves, whole or not."""
        command = part.command(limit_sec)
        entry.status, entry.limit_sec = RUNNING, round(limit_sec, 1)
        entry.command = self.readable(shlex.join(["python", *command[1:]]))
        self.write()
        log = self.folder / LOG_FILE
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"\n$ {entry.command}\n")
        outcome = run(command, limit_sec, log, self.environment)
        outcome = replace(outcome, output=self.readable(outcome.output))
        try:
            values = part.collect(outcome)
        except Exception as error:  # a file that is not as it should be must not take the other parts along
            values = {"summary": f"its results cannot be read ({type(error).__name__}: {error})"}
        entry.settle(outcome, values, part.max_lines)

    def readable(self, text: str) -> str:
        """Return a text with a short name for the folder that only this report had."""
        return text.replace(str(self.work), "WORK")

    def plain(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        return {
            "format": 1,
            "status": self.status,
            "facts": self.facts,
            "minutes": self.budget.minutes,
            "seconds": round(self.budget.used_sec, 1),
            "files": sorted(name for name in FILES if (self.folder / name).exists()),
            "parts": [asdict(entry) for entry in self.entries],
        }

    def write(self) -> None:
        """Write both files as far as the report has come; each is whole at any time."""
        plain = self.plain()
        with atomic_write(self.folder / JSON_FILE, "w") as file:
            file.write(json.dumps(plain, indent=1) + "\n")
        with atomic_write(self.folder / PAGE_FILE, "w") as file:
            file.write(page(plain))
