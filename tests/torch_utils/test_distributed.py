"""The collectives, tried by two processes; how an error of one of them reaches whoever started them; averaged gradients."""

import atexit
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch._inductor.config  # as by training.launch, whose `train` is called in new processes
import torch.distributed as dist
from torch import nn

from torch_utils import distributed
from torch_utils.distributed import (
    PeerError,
    all_ranks_have,
    assert_equal_across_ranks,
    average_gradients,
    broadcast_object,
    gather_rows,
    is_main,
    is_orphan,
    raise_on_all_ranks,
    require_exchange,
    spawn,
)

NAN, INF = float("nan"), float("inf")


def try_collectives(folder: Path) -> None:
    distributed.init(torch.device("cpu"))
    rank = distributed.rank()
    rows = torch.arange(3 - rank).unsqueeze(1) + 10.0 * rank  # 3 rows and 2
    gathered = gather_rows(rows)
    expected = [[0], [1], [2], [10], [11]] if rank == 0 else [[10], [11]]
    assert gathered.tolist() == expected and gather_rows(rows[:0]).shape == (0, 1)
    assert broadcast_object(rank) == 0 and all_ranks_have(True) and not all_ranks_have(rank == 0)
    assert is_main() == (rank == 0) and not is_orphan()
    assert_equal_across_ranks("the weights", [1, 2])
    with pytest.raises(PeerError, match="the weights of process 1 differ from those of process 0"):
        assert_equal_across_ranks("the weights", [1, rank])
    with raise_on_all_ranks():
        pass
    with pytest.raises((PeerError, OSError)) as raised, raise_on_all_ranks():
        if rank == 1:
            raise OSError("the disk is gone")
    (folder / str(rank)).write_text(str(raised.value))
    distributed.shutdown()


def fail_on_one(kind: type[Exception]) -> None:
    distributed.init(torch.device("cpu"))
    if distributed.rank() == 1:
        raise kind("no such thing; bring one")
    gather_rows(torch.zeros(1, 1))  # waits for the other


def fail_at_length(_: None) -> None:
    atexit.register(time.sleep, 600)  # as where an exchange between GPUs is waited for
    raise ValueError("x" * 100_000 + " the end")


def read_environment(folder: Path) -> None:
    names = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "LOCAL_WORLD_SIZE")
    values = [os.environ.get(name, "unset") for name in names]
    (folder / os.environ["RANK"]).write_text(f"{' '.join(values)} {torch._inductor.config.compile_threads}")


def be_killed(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGKILL"])
def test_a_killed_process_is_named_in_one_line(name: str) -> None:
    with pytest.raises(ChildProcessError, match=rf"^process \d was killed \({name}\); start the command again$"):
        spawn(be_killed, 2, signal.Signals[name].value)


def test_two_processes(tmp_path: Path) -> None:
    spawn(try_collectives, 2, tmp_path)
    assert [(tmp_path / name).read_text() for name in "01"] == ["process 1: the disk is gone", "the disk is gone"]


def test_the_failing_process_is_named_and_the_others_end() -> None:
    with pytest.raises(ValueError, match=r"^process 1: no such thing; bring one$"):
        spawn(fail_on_one, 2, ValueError)
    with pytest.raises(RuntimeError, match=r"^process 1 failed:\nTraceback(.|\n)*RuntimeError: no such thing"):
        spawn(fail_on_one, 2, RuntimeError)


def test_a_long_error_and_a_slow_exit_are_not_waited_for() -> None:
    started_sec = time.monotonic()
    with pytest.raises(ValueError, match=r"^x{9000,10000} the end$"):
        spawn(fail_at_length, 3, None)
    assert time.monotonic() - started_sec < 100


def test_processes_keep_to_one_machine_and_share_its_cores_unless_told_otherwise(tmp_path, monkeypatch) -> None:
    for name in ("GLOO_SOCKET_IFNAME", "TORCHINDUCTOR_COMPILE_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth7")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "5")  # of another program
    assert distributed.local_world_size() == 1
    spawn(read_environment, 2, tmp_path)
    cores = min(max(len(os.sched_getaffinity(0)) // 2, 1), 32)
    assert [(tmp_path / name).read_text() for name in "01"] == [f"eth7 lo 2 {cores}"] * 2


def test_the_third_interrupt_kills_what_hangs() -> None:
    program = "import signal, time; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline()
        with distributed._forward_signals([child.pid]):
            for _ in range(3):
                assert child.poll() is None
                os.kill(os.getpid(), signal.SIGINT)
        assert child.wait(30) == -signal.SIGKILL


def test_gpus_that_exchange_nothing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    work = SimpleNamespace(is_completed=lambda: False)
    monkeypatch.setattr(dist, "all_reduce", lambda x, async_op: work)
    with pytest.raises(PeerError, match=r"nothing within 0.1 s.*NCCL_P2P_DISABLE=1.*/dev/shm"):
        require_exchange(torch.device("cpu"), limit_sec=0.1)


def test_an_error_is_not_replaced_by_that_of_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(*arguments: object) -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", lose)
    with pytest.raises(OSError, match="the disk is gone"), raise_on_all_ranks():
        raise OSError("the disk is gone")
    with pytest.raises(RuntimeError, match="Connection closed"), raise_on_all_ranks():
        pass


def parameters_with(*grads: list[float] | None) -> list[nn.Parameter]:
    """Parameters of two dimensions with these gradients."""
    parameters = [nn.Parameter(torch.zeros(1, len(values or [0]))) for values in grads]
    for parameter, values in zip(parameters, grads, strict=True):
        parameter.grad = None if values is None else torch.tensor([values])
    return parameters


def test_gradients_become_finite_and_missing_ones_stay_missing() -> None:
    parameters = parameters_with([1.0, NAN, INF, -INF], None, [7.0], [2.0, 3.0])
    average_gradients(parameters, torch.zeros([]))
    grads = [None if p.grad is None else p.grad.tolist() for p in parameters]
    assert grads == [[[1.0, 0.0, 1e5, -1e5]], None, [[7.0]], [[2.0, 3.0]]]


@pytest.mark.parametrize(
    ("grads", "loss", "expected"),
    [
        ([[1.0, -3e38], [3e38]], 2.0, True),  # the largest numbers are finite
        ([[1.0, 2.0], [NAN]], 2.0, False),
        ([[1.0, -INF], [2.0]], 2.0, False),
        ([[1.0, 2.0], [3.0]], NAN, False),
        ([[1.0, 2.0], [3.0]], INF, False),
    ],
)
def test_what_is_finite(grads: list[list[float]], loss: float, expected: bool) -> None:
    parameters = parameters_with(*grads)
    found = average_gradients(parameters, torch.tensor(loss))[1]
    assert found.shape == () and found.dtype == torch.bool and bool(found) is expected
