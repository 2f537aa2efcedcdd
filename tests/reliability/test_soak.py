"""A long run with many snapshots takes no more memory and files than a short one.

Takes STYLEFORMER_SOAK_MINUTES (2 unless set; the promise in docs/reliability.md is of 20).
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_run import ROOT, environment

MINUTES = float(os.environ.get("STYLEFORMER_SOAK_MINUTES", "2"))
EVERY_SEC = 2.0


def memory_mb(pid: int) -> float:
    """The resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def open_files(pid: int) -> int:
    """The number of open files, pipes and sockets of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks into /proc")
def test_memory_and_files_stay(digits: Path, tmp_path: Path) -> None:
    # The demo's networks; a tick, a snapshot and a state about every half minute.
    command = [sys.executable, str(ROOT / "train.py"), "--cfg=demo", "--cond=1", f"--data={digits}"]
    command += [f"--outdir={tmp_path}"]
    command += ["--kimg=1000", "--tick=1", "--snap=1", "--keep=3", "--workers=1", "--metrics=none"]
    command += [f"--stop-after={round(MINUTES * 60)}s"]
    with open(tmp_path / "output", "w") as output:
        process = subprocess.Popen(command, env=environment(), stdout=output, stderr=subprocess.STDOUT)
    samples = []
    while process.poll() is None:
        time.sleep(EVERY_SEC)
        if process.poll() is None:
            samples.append((memory_mb(process.pid), open_files(process.pid)))
    text = (tmp_path / "output").read_text()
    assert process.returncode == 0 and "the time of --stop-after is over" in text, text
    quarter = len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[3 * quarter :]
    means = [sum(memory for memory, _ in part) / len(part) for part in (second, last)]
    files = [max(count for _, count in part) for part in (second, last)]
    print(f"\n{MINUTES:g} minutes, {text.count('kimg ')} ticks: {means} MB, {files} files")
    assert means[1] < 1.05 * means[0]
    assert files[1] <= files[0]
