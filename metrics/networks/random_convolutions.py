"""The network of proxy_fd_randconv_v1: statistics of edges at several scales, found by fixed random convolutions."""

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_SEED = 20210613
_CHANNELS = (3, 16, 21, 24)  # colours, then the filters of each scale, at half the resolution of the scale before
_GRID = 4  # the coarsest scale is also described region by region, on a grid of 4x4 cells ...
_GRID_CHANNELS = 8  # ... by so many of its filters

FEATURES = 2 * sum(_CHANNELS) + _GRID_CHANNELS * _GRID**2


class RandomConvolutions:
    """256 features of an image of any size from 8 px, grey or RGB.

    Mean and standard deviation over the pixels, of the colours and of the absolute responses of three layers of
    zero-mean random filters, and mean responses of the last layer on a 4x4 grid.
    """

    def __init__(self, device: torch.device) -> None:
        self.weights = {f"layer{index}": weight.to(device) for index, weight in enumerate(_filters())}

    def __call__(self, images: Tensor) -> Tensor:
        """Return features, float32 [n, 256], of images, uint8 [n, 1 or 3, height, width]."""
        x = (images.float() / 127.5 - 1).expand(-1, 3, -1, -1)
        features = _mean_and_std(x)
        for index, weight in enumerate(self.weights.values()):
            if index > 0:
                x = F.avg_pool2d(x, 2)
            x = F.conv2d(F.pad(x, [1, 1, 1, 1], mode="replicate"), weight).abs()
            features += _mean_and_std(x)
        features.append(F.adaptive_avg_pool2d(x[:, :_GRID_CHANNELS], _GRID).flatten(1))
        return torch.cat(features, dim=1)


def _filters() -> list[Tensor]:
    """Return the weights [out, in, 3, 3] of each layer: every 3x3 kernel sums to 0, every filter has length 1.

    Drawn as whole numbers from NumPy's frozen generator, so that they are the same bits on every machine.
    """
    random = np.random.RandomState(_SEED)
    filters = []
    for channels_in, channels_out in itertools.pairwise(_CHANNELS):
        weight = random.randint(-1000, 1001, size=(channels_out, channels_in, 3, 3)).astype(np.float64)
        weight -= weight.mean(axis=(2, 3), keepdims=True)
        weight /= np.sqrt(np.square(weight).sum(axis=(1, 2, 3), keepdims=True))
        filters.append(torch.from_numpy(weight.astype(np.float32)))
    return filters


def _mean_and_std(x: Tensor) -> list[Tensor]:
    # The small constant keeps the root of an even surface, whose variance is rounding noise, from jumping.
    return [x.mean(dim=(2, 3)), (x.var(dim=(2, 3), correction=0) + 1e-6).sqrt()]
