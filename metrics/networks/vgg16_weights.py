"""Reads the weights of VGG16 from torchvision's file or a TorchScript archive, and refuses everything else."""

import re
from pathlib import Path

import torch
from torch import Tensor

from metrics.networks.vgg16 import VGG16
from metrics.weights.published import Weights
from metrics.weights.state_files import check_state, read_state
from metrics.weights.torchscript import is_torchscript

_LPIPS_CHANNELS = [64, 128, 256, 512, 512]


def load_vgg16(path: Path) -> VGG16:
    """Return the network with the weights of a file; raises ValueError, as `read_vgg16` does."""
    with torch.device("meta"):
        network = VGG16()
    network.load_state_dict(read_vgg16(path), assign=True)
    return network.requires_grad_(False)


def read_vgg16(path: Path) -> dict[str, Tensor]:
    """Return the state of the network, under torchvision's names, from a .pth state or a TorchScript archive.

    An archive, such as StyleGAN2-ADA's vgg16.pt, is read for its tensors, of which it must have those of 13 convolutions
    and 3 fully connected layers. They are told apart by shape, and convolutions of one shape by the natural order of
    their names, which may differ by numbers only. Five vectors of LPIPS channel weights beside them are not used: whether
    they are the published ones or their roots is not said. This was not tried on the published archive.

    Raises ValueError for a damaged file, and for one that is not exactly this network: a missing, further, misshapen
    or non-finite tensor.
    """
    state = read_state(path)
    if is_torchscript(path):
        state = _translate(path, state)
    check_state(path, "the VGG16 network", _expected(), state)
    return state


def is_proven(weights: Weights) -> bool:
    """Return whether a file has the published weights in the layout that reading was tried on."""
    return weights.is_published and not is_torchscript(weights.path)


def _expected() -> dict[str, Tensor]:
    with torch.device("meta"):
        return VGG16().state_dict()


def _translate(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of an archive under torchvision's names; what is misshapen is left to others to find."""
    matrices = [name for name in sorted(tensors, key=_natural) if tensors[name].squeeze().ndim > 1]
    theirs = {kind: [name for name in matrices if tensors[name].ndim == kind] for kind in (4, 2)}
    expected = {name: tensor for name, tensor in _expected().items() if name.endswith(".weight")}
    ours = {kind: [name for name, tensor in expected.items() if tensor.ndim == kind] for kind in (4, 2)}
    theirs[2].sort(key=lambda name: tensors[name].shape, reverse=True)  # the first has the most inputs
    if any(len(theirs[kind]) != len(ours[kind]) for kind in ours) or len(theirs[4]) + len(theirs[2]) != len(matrices):
        raise _refusal(
            path, f"has {len(theirs[4])} convolutions and {len(theirs[2])} fully connected layers, not 13 and 3"
        )
    if len({re.sub(r"_?\d+", "", name) for name in theirs[4]}) > 1:
        raise _refusal(path, f"names convolutions {theirs[4][0]!r} and {theirs[4][-1]!r}, so their order is not known")
    names = {b: a for kind in ours for a, b in zip(ours[kind], theirs[kind], strict=True)}
    biases = {_bias(name): _bias(ours) for name, ours in names.items()}
    lacking = biases.keys() - tensors.keys()
    if lacking:
        raise _refusal(path, f"lacks {min(lacking)!r}")
    names |= biases
    further = sorted(tensors.keys() - names.keys(), key=_natural)
    if further and [tensors[name].numel() for name in further] != _LPIPS_CHANNELS:
        raise _refusal(path, f"also has {further[0]!r}, {list(tensors[further[0]].shape)}")
    return {ours: tensors[name] for name, ours in names.items()}


def _bias(weight: str) -> str:
    head, _, tail = weight.rpartition("weight")
    return f"{head}bias{tail}"


def _natural(name: str) -> list[list[str | int]]:
    """Return a key that sorts names by their parts, and numbers in them by value: conv, conv2, conv10."""
    return [
        [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", component)]
        for component in name.split(".")
    ]


def _refusal(path: Path, problem: str) -> ValueError:
    return ValueError(f"{path} is a TorchScript archive that cannot be read as the VGG16 network: it {problem}")
