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


def patience(said: list[str], retries: int = 3, stop_after: int = 1000) -> DiskFullRetry:
    asked = iter(range(1_000_000))
    return DiskFullRetry(retries, 0.01, said.append, lambda: next(asked) >= stop_after)


def test_waits_until_there_is_space(tmp_path: Path) -> None:
    said: list[str] = []
    failures = [full(), full()]

    def write() -> None:
        if failures:
            raise failures.pop()
        (tmp_path / "a").write_text("x")

    patience(said).write(write, tmp_path / "a")
    assert (tmp_path / "a").exists() and len(said) == 2
    assert "the disk is full" in said[0] and "3 more times" in said[0] and "2 more times" in said[1]


def test_gives_up_after_the_stated_number(tmp_path: Path) -> None:
    said: list[str] = []

    def write() -> None:
        raise full()

    with pytest.raises(DiskFullError, match="--resume=latest"):
        patience(said).write(write, tmp_path / "a")
    assert len(said) == 3
    with pytest.raises(DiskFullError, match="Stopped while waiting"):
        patience([], stop_after=0).write(write, tmp_path / "a")


def test_other_errors_are_not_waited_for(tmp_path: Path) -> None:
    said: list[str] = []

    def write() -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(PermissionError):
        patience(said).write(write, tmp_path / "a")
    assert not said


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
