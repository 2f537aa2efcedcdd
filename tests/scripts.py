"""The scripts in separate processes, and generate.py in this one."""

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

ROOT = Path(__file__).parents[1]


def run(script: str, *arguments: object, ok: bool = True) -> str:
    """What a script prints, stdout and stderr together; it must succeed, or fail without a traceback."""
    command = [sys.executable, str(ROOT / f"{script}.py"), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert (done.returncode == 0) is ok and "Traceback" not in done.stdout, done.stdout
    return done.stdout


def generate(*arguments: object, ok: bool = True) -> str:
    """What generate.py prints when it is called in this process; it must succeed, or fail with one line."""
    from generate import main

    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert (done.exit_code == 0) is ok, done.output
    return done.output
