"""Numbered run folders, and a copy of the console in each run's log.txt."""

import contextlib
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from dnnlib.console import Console


def create_run_dir(outdir: str | Path, description: str) -> Path:
    """Create `outdir/00000-<description>` with the next free number and return its path.

    Runs started at the same moment get different numbers, on a shared disk too.
    """
    outdir = Path(outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    number = max((_number(path) for path in run_dirs(outdir)), default=-1) + 1
    while True:
        claim = outdir / f".{number:05d}.claim"  # mkdir succeeds for one process only, whatever the descriptions
        with contextlib.suppress(FileExistsError):
            claim.mkdir()
            try:
                if all(_number(path) != number for path in run_dirs(outdir)):
                    run_dir = outdir / f"{number:05d}-{description}"
                    run_dir.mkdir()
                    return run_dir
            finally:
                claim.rmdir()
        number += 1


def run_dirs(outdir: str | Path) -> list[Path]:
    """Return the run folders in `outdir`, by number; none if `outdir` does not exist."""
    outdir = Path(outdir)
    if not outdir.is_dir():
        return []
    found = [path for path in outdir.iterdir() if re.match(r"\d+-", path.name) and path.is_dir()]
    return sorted(found, key=lambda path: (_number(path), path.name))


def _number(run_dir: Path) -> int:
    return int(run_dir.name.split("-")[0])


class Tee(Console):
    """Writes to the console and, line by line, to a log file.

    A progress bar rewrites its line many times; the log gets the line as it stood when it ended.
    """

    def __init__(self, console: TextIO, log: TextIO) -> None:
        super().__init__(console)
        self._log = log
        self._line = ""  # not yet ended

    def write(self, text: str) -> int:
        super().write(text)
        *ended, self._line = (self._line + text).replace("\r\n", "\n").split("\n")
        if ended:
            self._log_lines(ended)
        elif "\r" in self._line[:-1]:
            self._line = _as_shown(self._line) + ("\r" if self._line.endswith("\r") else "")
        return len(text)

    def finish(self) -> None:
        """Write what is left of an unfinished line to the log."""
        if self._line:
            self._log_lines([self._line])
            self._line = ""

    def _log_lines(self, lines: list[str]) -> None:
        with contextlib.suppress(OSError):  # a full disk must not keep people from reading that it is full
            self._log.write("".join(_as_shown(line) + "\n" for line in lines))
            self._log.flush()


def _as_shown(line: str) -> str:
    """Return the text that a console shows of a line with carriage returns: the one written last over the others."""
    return next((text for text in reversed(line.split("\r")) if text), "")


@contextlib.contextmanager
def tee_output(path: str | Path) -> Iterator[None]:
    """Copy stdout and stderr to the end of a log file; an exception that leaves the block is logged too.

    A log that cannot be written, on a full disk, ends nothing: its lines follow later or are lost.
    """
    log = open(path, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115  # closing it may fail on a full disk
    out, err = Tee(sys.stdout, log), Tee(sys.stderr, log)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):  # type: ignore[type-var]
            yield
    except Exception:
        with contextlib.suppress(OSError):
            traceback.print_exc(file=log)
        raise
    finally:
        out.finish()
        err.finish()
        with contextlib.suppress(OSError):
            log.close()
