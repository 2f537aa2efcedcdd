"""Reads the weights of the Inception network from either published layout, and refuses everything else."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from metrics.networks.inception import BLOCKS, Branch, Conv, InceptionV3
from metrics.weights.state_files import check_names, check_state, read_state
from metrics.weights.torchscript import is_torchscript

_NETWORK = "the Inception network of 2015"
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
    state = read_state(path)
    if is_torchscript(path):
        state = _translate(path, state)
    with torch.device("meta"):
        expected = InceptionV3().state_dict()
    check_state(path, _NETWORK, expected, state)
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
    check_names(path, _NETWORK, names.keys(), tensors.keys())
    state = {names[theirs]: tensor for theirs, tensor in tensors.items()}
    for name in list(state):
        if name.endswith(".bn.bias"):
            state[f"{name.removesuffix('.bias')}.weight"] = torch.ones_like(state[name])
            state[f"{name.removesuffix('.bias')}.num_batches_tracked"] = torch.zeros([], dtype=torch.int64)
    return state
