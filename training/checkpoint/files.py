"""Files of plain data: written whole, checked and read without running code."""

import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from dnnlib.dataclass_values import to_plain
from dnnlib.file_kinds import foreign_folder, foreign_kind
from dnnlib.files import atomic_write
from dnnlib.paths import user_path
from training.config import DatasetSpec, RunConfig

SNAPSHOT_FORMAT = "styleformer-snapshot"
STATE_FORMAT = "styleformer-training-state"
VERSION = 1
NETWORKS = ("G", "D", "G_ema")


class CheckpointError(ValueError):
    """A file that cannot be read as what was asked for; the message names it and the remedy."""


def write(path: Path, values: dict[str, Any]) -> None:
    """`torch.save` plain data under a name that appears only when the file is whole. Raises OSError.

    Tensors of a GPU are written as those of the CPU: the file opens on any machine.
    """
    values = on_cpu(values)
    with atomic_write(path) as file:
        try:
            torch.save(values, file)
        except RuntimeError as error:  # how torch passes on that it could not write
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def existing_file(path: str | Path) -> Path:
    """The path of a file that may be a network or state. Raises CheckpointError."""
    if not str(path):
        raise CheckpointError("the name of the file is empty; name a file such as network-snapshot-000040.pkl")
    path = user_path(path)
    if path.is_dir():
        snapshots = sorted(path.glob("network-snapshot-[0-9]*.pkl")) or sorted(
            path.glob("*/network-snapshot-[0-9]*.pkl")  # of the runs in it
        )
        kind = None if snapshots else foreign_folder(path)
        example = f", such as {snapshots[-1]}" if snapshots else ""
        raise CheckpointError(f"{path}: this is {kind or f'a folder; name a file in it{example}'}")
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    if kind := foreign_kind(path):
        raise CheckpointError(f"{path}: this is {kind}")
    return path


def on_cpu(value: Any) -> Any:
    """Nested plain data with all tensors in the memory of the CPU."""
    if isinstance(value, dict):
        return {key: on_cpu(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [on_cpu(part) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    return value.cpu() if isinstance(value, torch.Tensor) else value


def read(path: str | Path, expected_format: str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The plain data of a file of ours; runs no code from it. Raises CheckpointError."""
    path = existing_file(path)
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(
                f"{path}: damaged: the checksum of {damaged} is wrong; use another copy or an older file"
            )
        values = torch.load(path, map_location=device, weights_only=True)
    except CheckpointError:
        raise
    except (
        pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError, zipfile.BadZipFile, zlib.error,
        NotImplementedError,
    ) as error:  # fmt: skip
        reason = str(error).strip().split("\n")[0]
        if isinstance(error, pickle.UnpicklingError):  # torch would advise to run what is in it
            reason = "it holds more than tensors and plain values; nothing in it is run"
        raise CheckpointError(f"{path}: not a file of this program, or damaged ({reason})") from error
    found = values.get("format") if isinstance(values, dict) else None
    if found != expected_format:
        what = {
            SNAPSHOT_FORMAT: "a network snapshot (network-snapshot-*.pkl)",
            STATE_FORMAT: "a training state, from which train.py resumes",
        }
        raise CheckpointError(
            f"{path}: this is not {what[expected_format]}; it is {what.get(str(found), 'something else')}"
        )
    if values["version"] > VERSION:
        raise CheckpointError(f"{path}: written by a newer version of this program (format {values['version']})")
    return values


def header(file_format: str, config: RunConfig, spec: DatasetSpec, cur_nimg: int) -> dict[str, Any]:
    """What both kinds of file begin with."""
    return {
        "format": file_format,
        "version": VERSION,
        "config": config.to_dict(),
        "dataset": to_plain(vars(spec)),
        "cur_nimg": cur_nimg,
    }


def load_weights(network: torch.nn.Module, weights: dict[str, Any], path: str | Path) -> None:
    """`load_state_dict` with an error that names the file."""
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}: its weights do not fit its configuration ({reason})") from error
