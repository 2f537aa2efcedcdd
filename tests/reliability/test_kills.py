"""Runs that are killed, asked to stop, or out of time resume bit for bit."""

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tiny_runs import assert_same
from training_run import BATCH, PAUSED_TRAIN, STEPS, Run

KILLS = 25


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """Read the output of a process up to a line with this text, and return it."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"{text!r} was not printed:\n{''.join(lines)}")


def kill_at_random_moments(run: Run, kills: int, number: signal.Signals, seed: int) -> int:
    """Start the run repeatedly, ended by a signal each time; return how often the signal came before the end."""
    moments, in_time = random.Random(seed), 0
    for _ in range(kills):
        process = run.start()
        wait_for(process, "batch 4, 2 images per forward pass")  # set up; training begins
        time.sleep(moments.uniform(0, 1.5))
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)
        in_time += process.returncode != 0 if number is signal.SIGKILL else "To resume:" in output
        assert "Traceback" not in output, output
        if "Done." in output:  # too late: start again
            shutil.rmtree(run.outdir)
    return in_time


def test_killed_inside_writes_and_continued(digits: Path, whole: Run, tmp_path: Path) -> None:
    run = Run(digits, tmp_path / "run", program=PAUSED_TRAIN)
    assert kill_at_random_moments(run, kills=2, number=signal.SIGKILL, seed=1) > 0
    run.finish()
    assert_same(run.state(), whole.state())


@pytest.mark.slow
def test_killed_at_25_random_moments(digits: Path, whole: Run, tmp_path: Path) -> None:
    in_time = 0
    for number in range(KILLS):
        run = Run(digits, tmp_path / str(number), program=PAUSED_TRAIN)
        in_time += kill_at_random_moments(run, 1, signal.SIGKILL, seed=100 + number)
        run.finish()
        assert_same(run.state(), whole.state())
    assert in_time >= KILLS * 3 // 4


@pytest.mark.slow
def test_terminated_at_25_random_moments(digits: Path, whole: Run, tmp_path: Path) -> None:
    run = Run(digits, tmp_path / "run")
    assert kill_at_random_moments(run, KILLS, signal.SIGTERM, seed=7) >= KILLS // 4
    run.finish()
    assert_same(run.state(), whole.state())


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_saves_the_state_and_prints_how_to_resume(digits, whole, tmp_path, number) -> None:
    run = Run(digits, tmp_path / "run", ["--state-kimg=1"])
    process = run.start()
    wait_for(process, "batch 4, 2 images per forward pass")
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    if "Done." not in output:
        assert "To resume:\n    python" in output and "--resume=latest" in output
        assert ("SIGTERM" if number is signal.SIGTERM else "Ctrl-C") in output
    run.finish()
    assert_same(run.state(), whole.state())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_processes_stop_together(digits: Path, tmp_path: Path, number: signal.Signals) -> None:
    whole, run = (Run(digits, tmp_path / name, ["--gpus=2", "--kimg=0.08"]) for name in ("whole", "run"))
    whole.finish()
    process = run.start()
    wait_for(process, "sec/kimg")
    process.send_signal(number)  # to the starting process, which forwards it
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "To resume:" in output, output
    run.finish()
    assert_same(run.state(), whole.state())


@pytest.mark.slow
def test_stop_and_start_at_every_step(digits: Path, whole: Run, tmp_path: Path) -> None:
    run = Run(digits, tmp_path / "run")
    for step in range(1, STEPS + 1):
        run.finish(f"--kimg={step * BATCH / 1000}", "--state-kimg=0.004")
    assert_same(run.state(), whole.state())


@pytest.mark.slow
def test_the_clock_stops_a_run(digits: Path, tmp_path: Path) -> None:
    run = Run(digits, tmp_path / "run", ["--kimg=1000"])
    started_sec = time.monotonic()
    output = run.finish("--stop-after=8s")
    assert "the time of --stop-after is over. To resume:" in output
    assert 8 <= time.monotonic() - started_sec < 30
