"""Two processes, and two machines simulated by torchrun agents, train like one process and end together."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from training_run import Run

# Without noise and augmentation, which depend on the rank; a batch of four times two images, on one process or on four.
EQUAL = ["--aug=noaug", "--set=generator.noise=false", "--batch=8"]
METRIC = "proxy_fd_randconv_v1"


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


def relative_distance(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Length of the difference of all weights over their length."""
    pairs = [(ours[network][name], value) for network in ("G", "D", "G_ema") for name, value in theirs[network].items()]
    difference = sum((a - b).double().square().sum() for a, b in pairs)
    return float((difference / sum(b.double().square().sum() for _, b in pairs)).sqrt())


def test_two_processes_equal_one(digits: Path, tmp_path: Path) -> None:
    """In weights, and in the metric of the last snapshot."""
    one, two = (Run(digits, tmp_path / name, [*EQUAL, "--snap=50", f"--metrics={METRIC}"]) for name in ("one", "two"))
    one.finish()
    two.finish("--gpus=2")
    assert relative_distance(two.state(), one.state()) < 1e-5
    values = []
    for run in (one, two):
        values.append(json.loads((run.folder / f"metric-{METRIC}.jsonl").read_text().splitlines()[-1])["value"])
        best = run.folder / f"network-snapshot-best-{METRIC}.pkl"
        assert best.read_bytes() == (run.folder / "network-snapshot-000000.pkl").read_bytes()
    assert values[1] == pytest.approx(values[0], rel=1e-3)


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

    saved_nimg = run.state()["cur_nimg"]
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
