"""Two machines, played by two torchrun agents on this one, compute what one process does, and end together."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_run import Run

ROUNDING = ["--aug=noaug", "--set=generator.noise=false"]  # what depends on the rank is off
EQUAL = [*ROUNDING, "--batch=8"]  # four times two images, on one process or on four


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def agent(number: int, port: int) -> list[str]:
    """How to start one of two machines with two processes each."""
    options = ["--nnodes=2", f"--node-rank={number}", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
    return [sys.executable, "-m", "torch.distributed.run", *options, f"--master-port={port}"]


def start_machines(run: Run, *options: str) -> list[subprocess.Popen[str]]:
    port = free_port()
    return [run.start(*options, starter=agent(number, port)) for number in range(2)]


def relative_distance(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Length of the difference of all weights over their length."""
    names = [name for name in theirs if name.startswith((".G.", ".D.", ".G_ema."))]
    difference = sum((ours[name] - theirs[name]).double().square().sum() for name in names)
    return float((difference / sum(theirs[name].double().square().sum() for name in names)).sqrt())


@pytest.mark.slow
def test_two_machines_equal_one_process(digits: Path, tmp_path: Path) -> None:
    one, two = (Run(digits, tmp_path / name, EQUAL) for name in ("one", "two"))
    one.finish()
    machines = start_machines(two)
    outputs = [process.communicate(timeout=300)[0] for process in machines]
    assert [process.returncode for process in machines] == [0, 0], outputs
    assert relative_distance(two.state(), one.state()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("is_whole_machine", [False, True], ids=["agent killed", "machine gone"])
def test_the_end_of_one_machine_ends_the_other(digits: Path, tmp_path: Path, is_whole_machine: bool) -> None:
    run = Run(digits, tmp_path / "run", [*EQUAL, "--kimg=1000"])
    machines = start_machines(run)
    assert machines[0].stdout is not None
    for line in machines[0].stdout:
        if line.startswith("kimg 0.0") and "sec/kimg --" not in line:
            break
    victims = children(machines[1].pid) if is_whole_machine else []
    for pid in [machines[1].pid, *victims]:
        os.kill(pid, signal.SIGKILL)
    output, _ = machines[0].communicate(timeout=60)
    assert machines[0].returncode != 0
    expected = "lost the connection to another process" if is_whole_machine else "(torchrun) is gone. To resume:"
    assert expected in output, output
    machines[1].communicate(timeout=60)

    saved_nimg = run.state()[".cur_nimg"].item()
    more = f"--kimg={(saved_nimg + 16) / 1000}"
    machines = start_machines(run, more)
    outputs = [process.communicate(timeout=300)[0] for process in machines]
    assert [process.returncode for process in machines] == [0, 0], outputs
    reference = Run(digits, tmp_path / "reference", EQUAL)
    reference.finish(more)
    assert relative_distance(run.state(), reference.state()) < 1e-5


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in found.split()]
