import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_runs import CPU

from training.checkpoint.files import CheckpointError
from training.checkpoint.snapshot import export_snapshot, load_generator, load_networks, save_snapshot
from training.checkpoint.state_file import STATE_LATEST, find_state, state_values, write_state
from training.config import DatasetSpec, RunConfig
from training.state import TrainState


@pytest.fixture
def state(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> TrainState:
    return TrainState(tiny_config, tiny_spec, CPU)


def make_newer(path: Path) -> None:
    torch.save(torch.load(path, weights_only=True) | {"version": 99}, path)


def change_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "message"), [(make_newer, "newer version"), (change_a_bit, r": damaged: the checksum of .* is wrong")]
)
def test_a_file_that_cannot_be_used(state: TrainState, tmp_path: Path, change: Callable, message: str) -> None:
    save_snapshot(tmp_path / "network.pkl", state)
    change(tmp_path / "network.pkl")
    with pytest.raises(CheckpointError, match=message):
        load_generator(tmp_path / "network.pkl")


def test_a_training_state_has_the_networks_of_a_snapshot(state: TrainState, tmp_path: Path) -> None:
    """So a run that was stopped between snapshots can be looked at."""
    save_snapshot(tmp_path / "network.pkl", state)
    write_state(tmp_path, state_values(state))
    ours, theirs = (load_generator(tmp_path / name).state_dict() for name in (STATE_LATEST, "network.pkl"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    export_snapshot(tmp_path / STATE_LATEST, tmp_path / "exported.pkl")
    assert (tmp_path / "exported.pkl").stat().st_size == (tmp_path / "network.pkl").stat().st_size


@pytest.mark.parametrize("renaming", range(3))
def test_a_kill_at_any_renaming_loses_nothing(state, tmp_path, monkeypatch, renaming) -> None:
    """Writing a state takes three: of the whole file, of the one before it, and of the new one."""
    for nimg in (8, 16):
        state.cur_nimg = nimg
        write_state(tmp_path, state_values(state))
    replace_file, calls = os.replace, iter(range(100))

    def killed(*paths: Path) -> None:
        if next(calls) == renaming:
            raise KeyboardInterrupt
        replace_file(*paths)

    state.cur_nimg = 24
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_state(tmp_path, state_values(state))
    assert find_state(tmp_path)["cur_nimg"] == (24 if renaming == 2 else 16)  # type: ignore[index]
    write_state(tmp_path, state_values(state))
    assert find_state(tmp_path)["cur_nimg"] == 24  # type: ignore[index]


def test_networks_of_another_shape_are_refused(state: TrainState, tmp_path: Path) -> None:
    save_snapshot(tmp_path / "a.pkl", state)
    wider = state.config.changed(generator={"widths": (64, 16)})
    with pytest.raises(CheckpointError, match=r"generator\.widths \(32, 16\) there"):
        load_networks(tmp_path / "a.pkl", TrainState(wider, state.spec, CPU))
    unused = state.config.changed(generator={"linformer_tokens": 7})
    load_networks(tmp_path / "a.pkl", TrainState(unused, state.spec, CPU))
    other_heads = state.config.changed(generator={"head_width": 16})
    with pytest.raises(CheckpointError, match=r"generator\.head_width 8 there, 16 here"):
        load_networks(tmp_path / "a.pkl", TrainState(other_heads, state.spec, CPU))
    with pytest.raises(CheckpointError, match="classes 0 there, 4 here"):
        load_networks(tmp_path / "a.pkl", TrainState(state.config, DatasetSpec(16, 16, 3, label_dim=4), CPU))
