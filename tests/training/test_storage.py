"""What happens where the disk is full."""

import errno
from pathlib import Path

import pytest
import torch

from training.checkpoint.state_file import STATE_LATEST, find_state, state_values, write_state
from training.config import DatasetSpec, RunConfig
from training.run.disk_full import DiskFullError, DiskFullRetry
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


def test_a_full_disk_is_recognised_through_torch_and_leaves_the_last_state(
    tiny_config: RunConfig, tiny_spec: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = TrainState(tiny_config, tiny_spec, torch.device("cpu"))
    write_state(tmp_path, state_values(state))
    content = (tmp_path / STATE_LATEST).read_bytes()
    whole_save = torch.save

    def save(values: object, file: object) -> None:
        written = 0

        class Limited:
            def write(self, data: bytes) -> int:
                nonlocal written
                written += len(data)
                if written > len(content) // 2:
                    raise full()
                return file.write(data)  # type: ignore[attr-defined, no-any-return]

        whole_save(values, Limited())  # type: ignore[arg-type]

    monkeypatch.setattr(torch, "save", save)
    state.cur_nimg = 8
    with pytest.raises(OSError, match="No space left"):
        write_state(tmp_path, state_values(state))
    assert {path.name for path in tmp_path.iterdir()} == {STATE_LATEST}
    assert find_state(tmp_path)["cur_nimg"] == 0  # type: ignore[index]
