"""The scripts in separate processes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(script: str, *arguments: object, ok: bool = True) -> str:
    """What a script prints, stdout and stderr together; it must succeed, or fail without a traceback."""
    command = [sys.executable, str(ROOT / f"{script}.py"), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert (done.returncode == 0) is ok and "Traceback" not in done.stdout, done.stdout
    return done.stdout
