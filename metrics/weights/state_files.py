"""Reads files of weights without running what is in them, and checks that they are of the expected network."""

from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from metrics.weights.torchscript import ForbiddenName, is_torchscript, read_tensors

Network = TypeVar("Network", bound=nn.Module)


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a .pth state or a TorchScript archive; raises ValueError for any other file."""
    try:
        state = read_tensors(path) if is_torchscript(path) else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises almost anything, with torch's advice to run what is in it
        own_words = str(error).split("\n")[0] if isinstance(error, OSError | ForbiddenName) else ""
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) is not a file of weights, or damaged: "
            f"{own_words or 'it has no state_dict of plain tensors that can be read; download it again'}"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} has a {type(state).__name__} where named tensors are expected")
    return state


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


def expected_state(build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """Return names, shapes and types of a network's state, on the meta device: no memory, no random numbers."""
    with torch.device("meta"):
        return build().state_dict()


def with_state(build: Callable[[], Network], state: Mapping[str, Tensor]) -> Network:
    """Return a network with this state and without gradients."""
    with torch.device("meta"):
        network = build()
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False)
