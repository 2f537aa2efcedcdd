"""State files, all that a restart needs: the newest and the one before it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dnnlib.dataclass_values import build
from training.checkpoint.files import STATE_FORMAT, CheckpointError, header, read, write
from training.config import EmaConfig
from training.state import TrainState

STATE_LATEST = "training-state-latest.pt"
STATE_PREVIOUS = "training-state-previous.pt"
STATE_NEW = "training-state-new.pt"  # complete, not yet renamed: left by a kill between two renamings
STATE_FILES = (STATE_LATEST, STATE_NEW, STATE_PREVIOUS)  # the newest first


def state_values(state: TrainState, content_hash: str = "") -> dict[str, Any]:
    """Contents of a state file, with the hash of the data set; call it on every rank."""
    head = header(STATE_FORMAT, state.config, state.spec, state.cur_nimg)
    return head | {"content_hash": content_hash, "state": state.state_dict()}


def write_state(run_dir: Path, values: dict[str, Any]) -> None:
    """Write the latest state and keep the previous one; two complete states exist at every moment. Raises OSError."""
    latest, previous, new = (run_dir / name for name in (STATE_LATEST, STATE_PREVIOUS, STATE_NEW))
    write(new, values)
    if latest.exists():
        os.replace(latest, previous)
    os.replace(new, latest)


def find_state(run_dir: Path, log: Callable[[str], None] = print) -> dict[str, Any] | None:
    """The newest readable training state of a run folder, with its header; None if the folder has no state file.

    Raises CheckpointError if all its state files are damaged.
    """
    problem: CheckpointError | None = None
    for name in STATE_FILES:
        if not (run_dir / name).exists():
            continue
        try:
            values = read(run_dir / name, STATE_FORMAT)
        except CheckpointError as error:
            problem = error
            log(f"Warning: {error}; looking for an older state")
            continue
        if problem is not None:
            log(f"Using {name} of {values['cur_nimg'] / 1000:g} kimg")
        return values
    if problem is not None:
        snapshots = sorted(run_dir.glob("network-snapshot-[0-9]*.pkl"))
        remedy = f"from its newest snapshot: --resume={snapshots[-1]}" if snapshots else "without --resume=latest"
        raise CheckpointError(f"{run_dir}: no training state there can be read; start a new run {remedy}") from problem
    return None


def restore(state: TrainState, values: dict[str, Any], path: Path) -> None:
    """Load what `find_state` returned. Raises CheckpointError if it does not fit the networks."""
    try:
        state.load_state_dict(values["state"], build(EmaConfig, values["config"]["ema"], "ema"))
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise CheckpointError(
            f"{path}: its training state does not fit these settings or this version ({reason}); start from a snapshot: "
            f"--resume=FILE"
        ) from error
