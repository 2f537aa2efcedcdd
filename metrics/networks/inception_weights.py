"""Reads the weights of the Inception network from either published layout, and refuses everything else."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from metrics.networks.inception import InceptionV3
from metrics.weights.state_files import check_names, check_state, expected_state, read_state, with_state
from metrics.weights.torchscript import is_torchscript

_NETWORK = "the Inception network of 2015"
_LEAVES = {"weight": "conv.weight", "beta": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var"}


def load_inception(path: Path) -> InceptionV3:
    """Return the network with the weights of a file; raises ValueError, as `read_inception` does."""
    return with_state(InceptionV3, read_inception(path))


def read_inception(path: Path) -> dict[str, Tensor]:
    """Return the state of the network from a .pth state or a TorchScript archive, of which no code is run.

    Raises ValueError for a damaged file, and for one that is not exactly this network: a missing, further, misshapen
    or non-finite tensor.
    """
    state = read_state(path)
    if is_torchscript(path):
        state = _translate(path, state)
    expected = expected_state(InceptionV3)
    check_state(path, _NETWORK, expected, state)
    return state


def torchscript_names() -> dict[str, str]:
    """Return the name in the .pth file of each of the 378 tensors of inception-2015-12-05.pt.

    There, blocks and convolutions are counted as in TensorFlow's graph. All further tensors of the .pth file are
    constant: batch normalisation has no gain (1), and counters (0).
    """
    with torch.device("meta"):
        network = InceptionV3()
    units: dict[str, str] = {}
    for kind in ("conv", "mixed"):
        named = [(name, block) for name, block in network.named_children() if name.lower().startswith(kind)]
        for index, (name, block) in enumerate(named):
            place = f"layers.{_numbered(kind, index)}"
            inner = _block_names(block) if kind == "mixed" else []
            units |= {f"{place}.{theirs}": f"{name}.{ours}" for theirs, ours in inner} or {place: name}
    leaves = {f"{theirs}.{a}": f"{ours}.{b}" for theirs, ours in units.items() for a, b in _LEAVES.items()}
    return {**leaves, "output.weight": "fc.weight", "output.bias": "fc.bias"}


def _block_names(block: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the archive's and our name of each convolution of a block."""
    names = [name for name, _ in block.named_children()]
    towers = 0
    has_forks = any(name.endswith("b") for name in names)
    for branch, its_names in itertools.groupby(names, lambda name: re.sub(r"_\d[ab]?$", "", name)):
        convs: list[str] = []
        forks: list[str] = []
        for name in its_names:
            (forks if name[-1] in "ab" else convs).append(name)
        prefix = ""
        if (
            len(convs) > 1 or forks or branch == "branch_pool"
        ):  # of several steps; blocks with forks write it without a dot
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
