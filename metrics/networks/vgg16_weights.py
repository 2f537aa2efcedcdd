"""Reads the weights of VGG16 from torchvision's file or a TorchScript archive; raises ValueError for anything else."""

import re
from pathlib import Path

from torch import Tensor

from dnnlib.archive.file_tree import natural_key
from metrics.networks.vgg16 import VGG16
from metrics.weights.published import Weights
from metrics.weights.state_files import check_state, expected_state, read_state, with_state
from metrics.weights.torchscript import is_torchscript


def load_vgg16(path: Path) -> VGG16:
    """Return the network with the weights of a file; raises ValueError, as `read_vgg16` does."""
    return with_state(VGG16, read_vgg16(path))


def read_vgg16(path: Path) -> dict[str, Tensor]:
    """Return the state of the network, under torchvision's names, from a .pth state or a TorchScript archive.

    Of an archive, such as StyleGAN2-ADA's vgg16.pt, only the tensors are read. Those of a shape are taken in the natural
    order of their names. This was not tried on the published archive.

    Raises ValueError for a damaged file, and for a missing, further, misshapen or non-finite tensor.
    """
    state = read_state(path)
    expected = expected_state(VGG16)
    if is_torchscript(path):
        state = _translate(path, state, expected)
    check_state(path, "the VGG16 network", expected, state)
    return state


def is_proven(weights: Weights) -> bool:
    """Return whether a file has the published weights in the layout that reading was tried on."""
    return weights.is_published and not is_torchscript(weights.path)


def _translate(path: Path, tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of an archive under torchvision's names: convolutions in order, then fully connected layers."""
    ndims = {name: tensor.ndim for name, tensor in tensors.items() if tensor.squeeze().ndim in (2, 4)}
    if len({re.sub(r"_?\d+", "", name) for name in ndims if ndims[name] == 4}) > 1:
        raise ValueError(
            f"{path}: the names of the convolutions differ by more than a number, so their order is unknown"
        )
    weights = sorted(ndims, key=lambda name: (-ndims[name], natural_key(name.replace(".", "/"))))
    state = {}
    for ours, name in zip((name for name in expected if name.endswith(".weight")), weights, strict=False):
        head, _, tail = name.rpartition("weight")
        state[ours] = tensors[name]
        if (bias := f"{head}bias{tail}") in tensors:
            state[ours.replace(".weight", ".bias")] = tensors[bias]
    return state
