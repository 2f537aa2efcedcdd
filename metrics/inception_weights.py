"""Reads the weights of the Inception network from either published layout, and refuses everything else."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from metrics.inception import BLOCKS, Branch, Conv, InceptionV3
from metrics.torchscript import is_torchscript, read_tensors

_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_LEAVES = {"weight": "conv.weight", "beta": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var"}


def load_inception(path: Path) -> InceptionV3:
    """Return the network with the weights of a file; raises ValueError, as `read_inception` does."""
    with torch.device("meta"):  # draws no random numbers
        network = InceptionV3()
    network.load_state_dict(read_inception(path), assign=True)
    return network.requires_grad_(False)


def read_inception(path: Path) -> dict[str, Tensor]:
    """Return the state of the network from a .pth state or a TorchScript archive, of which no code is run.

    Raises ValueError for a damaged file, and for one that is not exactly this network: a missing, further, misshapen
    or non-finite tensor.
    """
    try:
        is_archive = is_torchscript(path)
        state = read_tensors(path) if is_archive else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises almost anything
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) is not a file of weights, or damaged: {reason}"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} has a {type(state).__name__} where named tensors are expected")
    if is_archive:
        state = _translate(path, state)
    _check(path, state)
    return state


def torchscript_names() -> dict[str, str]:
    """Return the name in the .pth file of each of the 378 tensors of inception-2015-12-05.pt.

    There, blocks and convolutions are counted as in TensorFlow's graph. All further tensors of the .pth file are
    constant: batch normalisation has no gain (1), and counters (0).
    """
    units = {f"layers.{_numbered('conv', index)}": name for index, name in enumerate(_STEM)}
    for index, (block, branches) in enumerate(BLOCKS.items()):
        for theirs, ours in _block_names(branches):
            units[f"layers.{_numbered('mixed', index)}.{theirs}"] = f"{block}.{ours}"
    leaves = {f"{theirs}.{a}": f"{ours}.{b}" for theirs, ours in units.items() for a, b in _LEAVES.items()}
    return {**leaves, "output.weight": "fc.weight", "output.bias": "fc.bias"}


def _block_names(branches: list[Branch]) -> Iterator[tuple[str, str]]:
    """Yield the archive's and our name of each convolution of a block."""
    towers = 0
    has_forks = any(isinstance(step, tuple) for branch in branches for step in branch)
    for branch in branches:
        convs = [step.name for step in branch if isinstance(step, Conv)]
        forks = [conv.name for step in branch if isinstance(step, tuple) for conv in step]
        prefix = ""
        if convs and len(branch) > 1:  # a branch of several steps is a tower; blocks with forks write it without a dot
            prefix = _numbered("tower", towers) + ("_" if has_forks else ".")
            towers += 1
        yield from ((f"{prefix}{_numbered('conv', index)}", name) for index, name in enumerate(convs))
        yield from ((f"{prefix}{_numbered('mixed_conv', index)}", name) for index, name in enumerate(forks))


def _numbered(name: str, index: int) -> str:
    return f"{name}_{index}" if index else name


def _translate(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of an archive under the names of the .pth file, with the constant ones added."""
    names = torchscript_names()
    _compare_names(path, set(names), set(tensors))
    state = {names[theirs]: tensor for theirs, tensor in tensors.items()}
    for name in list(state):
        if name.endswith(".bn.bias"):
            state[f"{name.removesuffix('.bias')}.weight"] = torch.ones_like(state[name])
            state[f"{name.removesuffix('.bias')}.num_batches_tracked"] = torch.zeros([], dtype=torch.int64)
    return state


def _check(path: Path, state: dict[str, Tensor]) -> None:
    """Raise ValueError unless the state is one of the network."""
    with torch.device("meta"):
        expected = InceptionV3().state_dict()
    _compare_names(path, set(expected), set(state))
    for name, tensor in expected.items():
        found = state[name]
        if not isinstance(found, Tensor) or (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            described = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"{path}: {name} is {described}, not {tensor.dtype} {list(tensor.shape)}")
        if not found.isfinite().all():
            raise ValueError(f"{path}: {name} has values that are not finite (NaN or infinite)")


def _compare_names(path: Path, expected: set[str], found: set[str]) -> None:
    for problem, names in (("lacks", expected - found), ("also has", found - expected)):
        if names:
            raise ValueError(
                f"{path} is not the Inception network of 2015: of {len(expected)} tensors expected it has "
                f"{len(expected & found)}; it {problem} {min(names, key=str)!r}"
            )
