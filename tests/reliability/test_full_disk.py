"""A run whose disk fills up warns, keeps its files, waits, and continues when there is space."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import assert_same
from training_run import ROOT, TINY, Run, environment

HAS_TMPFS = shutil.which("unshare") and not subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode
# In a mount namespace of its own: fill the small disk, train until it complains, make space, and see the end.
SCRIPT = """
set -e
mount -t tmpfs -o size={size} tmpfs {disk}
head -c {ballast} /dev/zero > {disk}/ballast
"$@" > {log} 2>&1 &
training=$!
for _ in $(seq 600); do grep -q "the disk is full" {log} && break; kill -0 $training 2>/dev/null || break; sleep 0.1; done
cp -r {disk}/runs {seen}
rm {disk}/ballast
wait $training && status=0 || status=$?
cp -r {disk}/runs {kept}
exit $status
"""


@pytest.mark.skipif(not HAS_TMPFS, reason="mounting a small disk takes the right to unshare namespaces")
@pytest.mark.slow
def test_a_disk_of_two_and_a_half_states(digits: Path, whole: Run, tmp_path: Path) -> None:
    state_bytes = (whole.folder / "training-state-latest.pt").stat().st_size
    others_bytes = sum(path.stat().st_size for path in whole.folder.iterdir() if "training-state" not in path.name)
    # Room for two and a half states; the ballast takes that of a state and a half.
    size = int(2.5 * state_bytes) + 2 * others_bytes
    places = {name: tmp_path / name for name in ("disk", "seen", "kept", "log")}
    places["disk"].mkdir()
    run = Run(digits, places["disk"] / "runs", ["--set=schedule.disk_wait_sec=1", "--set=schedule.disk_retries=60"])
    command = [sys.executable, str(ROOT / "train.py"), f"--data={digits}", f"--outdir={run.outdir}"]
    script = SCRIPT.format(size=size, ballast=int(1.5 * state_bytes) + others_bytes, **places)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *command, *TINY, *run.options], check=False, env=environment(),
        capture_output=True, text=True,
    )  # fmt: skip
    output = places["log"].read_text()
    assert done.returncode == 0, done.stderr + output
    assert "the disk is full" in output and "retrying in 1s, 60 more times" in output
    assert "Traceback" not in output
    kept = Run(digits, places["kept"])
    assert_same(kept.state(), whole.state())
    for folder in (places["seen"], places["kept"]):  # also while it was full, every state there was whole
        states = list(folder.glob("*/training-state-latest.pt"))
        assert states or folder == places["seen"]
        if states:
            Run(digits, folder).state()
    assert not [name for name in os.listdir(kept.folder) if name.endswith(".tmp") or "-new" in name]
