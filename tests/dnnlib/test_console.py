"""A console that vanishes costs lines, never the program."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from dnnlib.console import plain_warnings

ROOT = Path(__file__).parents[2]
CODE = """
import sys
from pathlib import Path
from dnnlib.console import protect_console
protect_console()
import tqdm
for i in tqdm.tqdm(range(1000), mininterval=0):
    print("line", i, "x" * 100, flush=i % 2 == 0)
print("to stderr", file=sys.stderr, flush=True)
file = open(sys.argv[1], "w")
file.write(f"done, descriptor above 2: {file.fileno() > 2}")
"""
DONE = "done, descriptor above 2: True"


@pytest.mark.parametrize("redirection", [">/dev/full", "2>/dev/full", ">/dev/full 2>&1", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_full_or_closed_console(tmp_path: Path, redirection: str) -> None:
    command = f'"$0" -c "$1" "$2" {redirection}'
    arguments = ["sh", "-c", command, sys.executable, CODE, str(tmp_path / "out")]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True)
    assert done.returncode == 0 and (tmp_path / "out").read_text() == DONE
    assert b"Exception" not in done.stderr


def started(folder: Path, **streams: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CODE, folder / "out"], cwd=ROOT, **streams)


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    process = started(tmp_path, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    os.read(reading, 10)
    os.close(reading)
    _, err = process.communicate()
    assert process.returncode == 0 and (tmp_path / "out").read_text() == DONE
    assert b"to stderr" in err and b"Broken" not in err


def test_a_terminal_that_is_closed(tmp_path: Path) -> None:
    main, terminal = os.openpty()
    process = started(tmp_path, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    os.read(main, 10)
    os.close(main)
    assert process.wait() == 0 and (tmp_path / "out").read_text() == DONE


def test_warnings_are_lines_without_code() -> None:
    lines: list[str] = []
    with plain_warnings(lines.append):
        warnings.warn("few images", stacklevel=1)
    assert lines == ["Warning: few images"]
