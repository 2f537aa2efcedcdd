"""Runs the parts of a report one after the other, each within its time, and keeps the record."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import click

from benchmarks.gpu_report.budget import Budget
from benchmarks.gpu_report.child import run
from benchmarks.gpu_report.parts import Part
from benchmarks.gpu_report.record import DONE, LOG_FILE, RUNNING, SKIPPED, Entry, Record, settle


@dataclass
class Session:
    """A report in the making."""

    record: Record
    budget: Budget
    work: Path  # folder of data set, runs and compiled code, removed at the end
    environment: dict[str, str]

    def run(self, parts: list[Part]) -> None:
        """Run one part after the other; what goes wrong in one is noted, and the next begins."""
        self.write()
        for index, (part, entry) in enumerate(zip(parts, self.record.entries, strict=True)):
            later = [other.need for other in parts[index + 1 :] if not other.why_skip]
            limit_sec = 0.0 if part.why_skip else self.budget.limit_sec(part.need, later)
            if limit_sec == 0:
                entry.status, entry.note = SKIPPED, part.why_skip or "no time left"
            else:
                self.run_part(part, entry, limit_sec)
            self.write()
            click.echo(f"{self.record.seconds:6.0f} s  {entry.title}: {entry.status}{entry.note and f', {entry.note}'}")
        self.record.status = DONE
        self.write()

    def run_part(self, part: Part, entry: Entry, limit_sec: float) -> None:
        """Run a part, and read what it leaves, whole or not."""
        command = part.command(limit_sec)
        entry.status, entry.limit_sec = RUNNING, round(limit_sec, 1)
        entry.command = self.readable(shlex.join(["python", *command[1:]]))
        self.write()
        log = self.record.folder / LOG_FILE
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"\n$ {entry.command}\n")
        outcome = run(command, limit_sec, log, self.environment)
        outcome = replace(outcome, output=self.readable(outcome.output))
        try:
            values = part.collect(outcome)
        except Exception as error:  # a file that is not as it should be must not take the other parts along
            values = {"summary": f"its results cannot be read ({type(error).__name__}: {error})"}
        settle(entry, outcome, values, part.max_lines)

    def readable(self, text: str) -> str:
        """Return a text with a short name for the folder that only this report had."""
        return text.replace(str(self.work), "WORK")

    def write(self) -> None:
        """Write the report as far as it has come."""
        self.record.seconds = self.budget.used_sec
        self.record.write()
