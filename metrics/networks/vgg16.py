"""VGG16, whose features precision and recall are defined by: 4,096 numbers per image."""

import itertools
from collections.abc import Iterator

import torch
import torchvision
from torch import Tensor, nn

from metrics.networks.inception import resize_as_tensorflow

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
