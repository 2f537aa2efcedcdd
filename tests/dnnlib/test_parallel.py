import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dnnlib.parallel import ordered_map


def _square(number: int) -> int:
    return number * number


def _refuse_700(number: int) -> int:
    if number == 700:
        raise ValueError(f"{number} is refused")
    return number


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_order_is_kept(workers: int) -> None:
    assert list(ordered_map(_square, range(1000), workers)) == [number * number for number in range(1000)]


def test_endless_items_are_taken_as_needed() -> None:
    taken = 0

    def count() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken - 1

    results = ordered_map(_square, count(), 2)
    assert list(itertools.islice(results, 300)) == [number * number for number in range(300)]
    results.close()
    assert taken < 2000


def test_error_arrives_at_its_turn() -> None:
    results = ordered_map(_refuse_700, range(1000), 2)
    assert list(itertools.islice(results, 640)) == list(range(640))
    with pytest.raises(ValueError, match="700 is refused"):
        list(results)


def _die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_worker_is_reported() -> None:
    with pytest.raises(ValueError, match=r"worker process was killed.*--workers"):
        list(ordered_map(_die, range(10), 2))


def _process_exists(pid: int) -> bool:
    """Tell whether a process runs; one that has ended but that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_workers_end_with_a_killed_parent() -> None:
    code = """
import multiprocessing, time
from dnnlib.parallel import ordered_map
results = ordered_map(time.sleep, [0.01] * 1000, 2, 1)
next(results)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 2
        assert all(map(_process_exists, workers))
        process.kill()
    for _ in range(500):
        if not any(map(_process_exists, workers)):
            return
        time.sleep(0.01)
    pytest.fail("the workers outlive their parent")
