"""LPIPS with VGG16: how different two images look."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from metrics.networks.vgg16 import activations, normalise
from metrics.weights.reading import check_state, read_state

CHANNELS = (64, 128, 256, 512, 512)  # of the five activations it compares
SMALLEST_PX = 16  # of an image's sides: VGG16 halves them four times

_NEVER_ZERO = 1e-10  # added to the length of a position's channels, as published


class Lpips:
    """Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018, version 0.1.

    Images are float, 0..255, not rounded, [n, 1 or 3, height, width].
    """

    def __init__(self, convolutions: nn.Sequential, channel_weights: Sequence[Tensor]) -> None:
        self._convolutions = convolutions
        self._roots = [weights.sqrt().view(-1, 1, 1) for weights in channel_weights]

    def embed(self, images: Tensor) -> list[Tensor]:
        """Return five parts, [n, channels * positions], of a vector whose squared distances are LPIPS (equation 1)."""
        maps = activations(self._convolutions, normalise(images))
        return [self._weigh(x, roots).flatten(1) for x, roots in zip(maps, self._roots, strict=True)]

    def distance(self, images: Tensor, others: Tensor) -> Tensor:
        """Return the distance of each image to its partner, float64 [n]."""
        parts = zip(self.embed(images), self.embed(others), strict=True)
        return torch.stack([(a - b).square().sum(dim=1, dtype=torch.float64) for a, b in parts]).sum(dim=0)

    def _weigh(self, x: Tensor, roots: Tensor) -> Tensor:
        length = x.square().sum(dim=1, keepdim=True).sqrt() + _NEVER_ZERO
        return x / length * (roots / (x.shape[2] * x.shape[3]) ** 0.5)


def read_channel_weights(path: Path) -> list[Tensor]:
    """Return LPIPS's weights of the channels of each activation, float32 [channels]; raises ValueError for other files."""
    names = [f"lin{index}.model.1.weight" for index in range(len(CHANNELS))]
    with torch.device("meta"):
        expected = {name: torch.empty(1, count, 1, 1) for name, count in zip(names, CHANNELS, strict=True)}
    state = read_state(path)
    check_state(path, "the LPIPS weights for VGG16", expected, state)
    for name in names:
        if state[name].min() < 0:
            raise ValueError(f"{path}: {name} has negative values, of which LPIPS knows none")
    return [state[name].flatten() for name in names]
