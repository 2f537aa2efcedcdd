"""Reads files of weights, runs nothing that is in them, and refuses those that are not of the network expected."""

import pickle
import zipfile
from collections.abc import Mapping, Set
from pathlib import Path

import torch
from torch import Tensor

from metrics.weights.torchscript import is_torchscript, read_tensors


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a .pth state or a TorchScript archive; raises ValueError for any other file."""
    is_archive = False
    try:
        is_archive = is_torchscript(path)
        state = read_tensors(path) if is_archive else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises almost anything
        own_words = (str(error).strip() or type(error).__name__).split("\n")[0]
        reason = own_words if is_archive else problem(path, error)
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) is not a file of weights, or damaged: {reason}"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} has a {type(state).__name__} where named tensors are expected")
    return state


def problem(path: Path, error: Exception) -> str:
    """Return why torch could not read a file, but not in its words: it would advise to run what is in the file."""
    if isinstance(error, OSError) and error.filename:
        return str(error.strerror)
    with open(path, "rb") as file:
        start = file.read(4)
    is_zip = zipfile.is_zipfile(path)
    is_pickle = start.startswith(b"\x80")
    if not start:
        return "it is empty"
    if (start == b"PK\3\4" and not is_zip) or (is_pickle and (isinstance(error, EOFError) or "EOF" in str(error))):
        return "its end is missing; copy or download it again"
    if not is_pickle and not (is_zip and has_pickle(path)):
        return "it holds no tensors as torch.save writes them"
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than plain tensors, such as a whole network; nothing in it is run; save a state_dict"
    return "a part of it cannot be read; copy or download it again"


def has_pickle(path: Path) -> bool:
    """Return whether a zip has the file that torch.save describes tensors in."""
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/data.pkl") for name in archive.namelist())


def check_names(path: Path, what: str, expected: Set[str], found: Set[str]) -> None:
    """Raise ValueError unless a file's tensors have the names expected; `what` names the network."""
    for problem, names in (("lacks", expected - found), ("also has", found - expected)):
        if names:
            raise ValueError(
                f"{path} is not {what}: of {len(expected)} tensors expected it has {len(expected & found)}; it {problem} "
                f"{min(names, key=str)!r}"
            )


def check_state(path: Path, what: str, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless a file's tensors have the names, shapes and types of `expected` and finite values.

    Of `expected` only that is looked at, so it may be on the meta device; `what` names the network in messages.
    """
    check_names(path, what, expected.keys(), state.keys())
    for name, tensor in expected.items():
        found = state[name]
        if not isinstance(found, Tensor) or (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            described = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"{path}: {name} is {described}, not {tensor.dtype} {list(tensor.shape)}")
        if not torch.stack(found.aminmax()).isfinite().all():  # NaN shows in both; nothing of the tensor's size is made
            raise ValueError(f"{path}: {name} has values that are not finite (NaN or infinite)")
