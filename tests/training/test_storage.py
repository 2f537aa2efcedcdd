"""What happens where the disk is full."""

import errno
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from torch_utils import distributed
from training.checkpoint.state_file import STATE_LATEST, find_state, state_values, write_state
from training.config import ScheduleConfig
from training.run.output import RunOutput
from training.run.stop import StopRequest
from training.state import TrainState


def output_of(folder: Path, logged: list[str], schedule: ScheduleConfig, is_stopped: bool = False) -> RunOutput:
    stop = StopRequest(time.monotonic() if is_stopped else None)
    return RunOutput(folder, schedule, None, "", logged.append, stop)  # type: ignore[arg-type]


def full(path: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_waits_until_there_is_space_and_gives_up_after_the_stated_number(tmp_path: Path) -> None:
    failures: list[Callable[[Path], None]] = []
    logged: list[str] = []

    def write(path: Path) -> None:
        if failures:
            failures.pop()(path)
        path.write_text("x")

    def attempt(*given: Callable[[Path], None], is_stopped: bool = False) -> None:
        logged.clear()
        failures[:] = given
        output_of(tmp_path, logged, ScheduleConfig(disk_retries=3, disk_wait_sec=0.01), is_stopped).write(0, "a", write)

    def forbidden(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    attempt(full, full)
    assert (tmp_path / "a").exists()
    assert "the disk is full" in logged[0] and "3 more times" in logged[0] and "2 more times" in logged[1]
    with pytest.raises(OSError, match=r"the disk is full.* --resume=latest"):
        attempt(*[full] * 4)
    with pytest.raises(OSError, match="Stopped while waiting"):
        attempt(full, is_stopped=True)
    with pytest.raises(PermissionError):
        attempt(forbidden)
    assert not logged


def test_several_processes_do_not_wait_longer_than_their_collectives(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    output = output_of(tmp_path, [], ScheduleConfig(disk_retries=10, disk_wait_sec=300.0))
    assert output.retries * output.wait_sec < distributed.TIMEOUT.total_seconds() / 2
    with pytest.raises(OSError, match="the disk is full"):  # at once
        output.write(0, "reals.png", full)


def test_a_write_that_fails_halfway_leaves_the_last_state(tiny_config, tiny_spec, tmp_path) -> None:
    state = TrainState(tiny_config, tiny_spec, torch.device("cpu"))
    write_state(tmp_path, state_values(state))
    state.cur_nimg = 8
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / STATE_LATEST).stat().st_size // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_state(tmp_path, state_values(state))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name for path in tmp_path.iterdir()} == {STATE_LATEST}
    assert find_state(tmp_path)["cur_nimg"] == 0  # type: ignore[index]
