"""VGG16, whose features precision and recall are defined by, and its weights: torchvision's file or a TorchScript archive."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from dnnlib.archive.file_tree import natural_key
from metrics.networks.inception import resize_as_tensorflow
from metrics.weights.published import Weights
from metrics.weights.reading import check_state, expected_state, is_torchscript, read_state, with_state

INPUT_PX = 224
FEATURES = 4096

_MEAN = (0.485, 0.456, 0.406)  # of ImageNet's images, 0..1
_STD = (0.229, 0.224, 0.225)
_BEFORE_LAST = 5  # fully connected layer, ReLU, dropout (idle), fully connected layer, ReLU


class VGG16(nn.Module):
    """The network of Simonyan and Zisserman, 2015, in eval mode from the start; its state has torchvision's names."""

    def __init__(self) -> None:
        super().__init__()
        skeleton = torchvision.models.vgg16(weights=None, init_weights=False)
        self.features, self.classifier = skeleton.features, skeleton.classifier
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return features, float32 [n, 4096], of images, uint8 [n, 1 or 3, height, width]; grey counts as RGB.

        They are those of the second fully connected layer after ReLU, of images resized as TensorFlow 1 did.
        """
        x = self.features(normalise(resize_as_tensorflow(images.float(), INPUT_PX)))
        return self.classifier[:_BEFORE_LAST](x.flatten(1))


def normalise(images: Tensor) -> Tensor:
    """Return what VGG16 takes, [n, 3, height, width], of float images, 0..255, [n, 1 or 3, height, width]."""
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) * 255 for values in (_MEAN, _STD))
    return (images - mean) / std


def activations(convolutions: nn.Sequential, x: Tensor) -> Iterator[Tensor]:
    """Yield the activations before each of VGG16's five poolings: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3."""
    for layer, following in itertools.pairwise(convolutions):
        x = layer(x)
        if isinstance(following, nn.MaxPool2d):
            yield x


def load_vgg16(path: Path) -> VGG16:
    """Return the network with the weights of a file; raises ValueError, as `read_vgg16` does."""
    return with_state(VGG16, read_vgg16(path))


def read_vgg16(path: Path) -> dict[str, Tensor]:
    """Return the state of the network, under torchvision's names, from a .pth state or a TorchScript archive.

    Of an archive, such as StyleGAN2-ADA's vgg16.pt, only the tensors are read. Those of a shape are taken in the natural
    order of their names. This was not tried on the published archive. Raises ValueError for any other file.
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
        raise ValueError(f"{path}: the names of the convolutions differ by more than a number: their order is unknown")
    weights = sorted(ndims, key=lambda name: (-ndims[name], natural_key(name.replace(".", "/"))))
    state = {}
    for ours, name in zip((name for name in expected if name.endswith(".weight")), weights, strict=False):
        head, _, tail = name.rpartition("weight")
        state[ours] = tensors[name]
        if (bias := f"{head}bias{tail}") in tensors:
            state[ours.replace(".weight", ".bias")] = tensors[bias]
    return state
