"""One process trains in a run folder at a time."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from training.run.lock import LOCK_FILE, run_lock

ROOT = Path(__file__).parents[2]
HOLD = """
import os, sys, time
from pathlib import Path
from training.run.lock import run_lock
lock = run_lock(Path(sys.argv[1]))
lock.__enter__()
child = os.fork()  # as a reading process, which outlives its parent for some seconds
print(os.getpid() if child else "", flush=True)
time.sleep(60 if child else 3)
"""


@pytest.fixture
def owner(tmp_path: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline()
    return process


def test_a_second_process_is_refused_until_the_first_ends(owner, tmp_path, capsys) -> None:
    with pytest.raises(ValueError, match=rf"{tmp_path} is in use: process {owner.pid} on \S+, since 20"):
        run_lock(tmp_path).__enter__()
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    with run_lock(tmp_path):
        assert f"Taking over {tmp_path} from process {owner.pid} on" in capsys.readouterr().out
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert (tmp_path / LOCK_FILE).read_text() == ""


def test_a_run_that_ended_is_taken_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with run_lock(tmp_path):
            pass
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"{not json", b"\xff\xfe\x00", b"[1]", b'{"host": 1}'])
def test_a_damaged_lock_file_does_not_keep_anybody_out(tmp_path, capsys, content) -> None:
    (tmp_path / LOCK_FILE).write_bytes(content)
    with run_lock(tmp_path):
        pass
    assert "from another process, which no longer holds" in capsys.readouterr().out
