"""What happens where the disk is full."""

import errno
import resource
from pathlib import Path

import pytest
import torch

from torch_utils import distributed
from training.checkpoint.state_file import STATE_LATEST, find_state, state_values, write_state
from training.config import DatasetSpec, RunConfig, ScheduleConfig
from training.run.disk_full import DiskFullError, DiskFullRetry
from training.run.output import RunOutput
from training.run.stop import StopRequest
from training.state import TrainState


def full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def test_waits_until_there_is_space_and_gives_up_after_the_stated_number(tmp_path: Path) -> None:
    failures: list[OSError] = []
    logged: list[str] = []

    def write() -> None:
        if failures:
            raise failures.pop()
        (tmp_path / "a").write_text("x")

    def attempt(*errors: OSError, stop: bool = False) -> None:
        logged.clear()
        failures[:] = errors
        DiskFullRetry(3, 0.01, logged.append, lambda: stop).write(write, tmp_path / "a")

    attempt(full(), full())
    assert (tmp_path / "a").exists()
    assert "the disk is full" in logged[0] and "3 more times" in logged[0] and "2 more times" in logged[1]
    with pytest.raises(DiskFullError, match="--resume=latest"):
        attempt(*[full()] * 4)
    with pytest.raises(DiskFullError, match="Stopped while waiting"):
        attempt(full(), stop=True)
    with pytest.raises(PermissionError):
        attempt(PermissionError(errno.EACCES, "Permission denied"))
    assert not logged


def test_several_processes_do_not_wait_longer_than_their_collectives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    schedule = ScheduleConfig(disk_retries=10, disk_wait_sec=300.0)
    output = RunOutput(tmp_path, schedule, None, "", print, StopRequest())  # type: ignore[arg-type]
    assert output.retry.retries * output.retry.wait_sec < distributed.TIMEOUT.total_seconds() / 2

    def write(path: Path) -> None:
        raise full()

    with pytest.raises(DiskFullError):  # at once
        output.write(0, "reals.png", write)


def test_a_write_that_fails_halfway_leaves_the_last_state(
    tiny_config: RunConfig, tiny_spec: DatasetSpec, tmp_path: Path
) -> None:
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
