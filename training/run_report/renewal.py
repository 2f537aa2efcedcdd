"""Updates report.html during a run; an error there does not end the run."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dnnlib.files import atomic_write
from training.run.names import REPORT_FILE
from training.run_report.facts import write_facts
from training.run_report.page import make_page


class RunReport:
    """The report of a run in progress, written by its first process."""

    def __init__(
        self, run_dir: Path, gather: Callable[[], dict[str, Any]], log: Callable[[str], None], is_on: bool = True
    ) -> None:
        self.run_dir, self.log, self.is_on = run_dir, log, is_on
        self.facts = functools.cache(gather)

    def write(self, status: str = "running", reason: str = "") -> None:
        """Write the report, or a warning; the status is running, done, stopped or failed."""
        if not self.is_on:
            return
        try:
            write_facts(self.run_dir, self.facts(), status, reason)
            write_report(self.run_dir)
        except Exception as error:  # never end the run for its report
            effect = ", training continues" if status == "running" else ""
            self.log(f"Warning: {REPORT_FILE} was not updated{effect}: {error}")


def write_report(run_dir: Path) -> Path:
    """Write report.html of a run folder and return its path; raises OSError."""
    page = make_page(run_dir)
    with atomic_write(run_dir / REPORT_FILE, "w") as file:
        file.write(page)
    return run_dir / REPORT_FILE
