"""Files of plain data: written whole, checked and read without running code."""

import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from dnnlib.dataclass_values import to_plain
from dnnlib.file_kinds import EXAMPLE, foreign_folder, foreign_kind
from dnnlib.files import atomic_write
from dnnlib.paths import user_path
from training.config import DatasetSpec, RunConfig

SNAPSHOT_FORMAT = "styleformer-snapshot"
STATE_FORMAT = "styleformer-training-state"
VERSION = 1


class CheckpointError(ValueError):
    """A file cannot be read as requested; the message names it and the remedy."""


def write(path: Path, values: dict[str, Any]) -> None:
    """`torch.save` plain data, with all tensors on the CPU, to a file that gets its name when complete. Raises OSError."""
    values = tree_map_only(torch.Tensor, torch.Tensor.cpu, values)
    with atomic_write(path) as file:
        try:
            torch.save(values, file)
        except RuntimeError as error:  # torch hides the OSError of a failed write in its context
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
        what = f"{kind}; {EXAMPLE}" if kind else f"a folder; name a file in it{example}"
        raise CheckpointError(f"{path}: this is {what}")
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    if kind := foreign_kind(path):
        raise CheckpointError(f"{path}: this is {kind}; {EXAMPLE}")
    return path


def read(path: str | Path, *formats: str) -> dict[str, Any]:
    """The plain data of a file of ours in one of these formats, on the CPU; runs no code from it. Raises CheckpointError."""
    path = existing_file(path)
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not verify the checksums
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(
                f"{path}: damaged: the checksum of {damaged} is wrong; use another copy or an older file"
            )
        values = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except (
        pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError, zipfile.BadZipFile, zlib.error,
        NotImplementedError,
    ) as error:  # fmt: skip
        reason = str(error).strip().split("\n")[0]
        if isinstance(error, pickle.UnpicklingError):  # torch's message advises to run the code in it
            reason = "it holds more than tensors and plain values; nothing in it is run"
        raise CheckpointError(f"{path}: not a file of this program, or damaged ({reason})") from error
    found = values.get("format") if isinstance(values, dict) else None
    if found not in formats:
        what = {
            SNAPSHOT_FORMAT: "a network snapshot (network-snapshot-*.pkl)",
            STATE_FORMAT: "a training state, from which train.py resumes",
        }
        raise CheckpointError(f"{path}: this is not {what[formats[0]]}; it is {what.get(str(found), 'something else')}")
    if values["version"] > VERSION:
        raise CheckpointError(f"{path}: written by a newer version of this program (format {values['version']})")
    return values


def header(file_format: str, config: RunConfig, spec: DatasetSpec, cur_nimg: int) -> dict[str, Any]:
    """The fields that snapshots and states begin with."""
    return {
        "format": file_format,
        "version": VERSION,
        "config": config.to_dict(),
        "dataset": to_plain(vars(spec)),
        "cur_nimg": cur_nimg,
    }
