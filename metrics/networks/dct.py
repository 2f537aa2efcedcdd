"""The detector of proxy_fd_dct_v1: the spectrum of an image by the discrete cosine transform, defined by formulas alone."""

import functools
import hashlib
import itertools
import math

import torch
from torch import Tensor

_COARSE = (8, 4, 4)  # signed coefficients kept a side: of brightness and of each of two colour differences
_BANDS = (8, 4, 4)  # bands of frequencies a side whose energy is kept, of the same
_COARSE_UNIT = 64.0  # grey levels; both units set what the two kinds of features count for in a distance
_ENERGY_UNIT = 4.0  # grey levels of noise; energy far below counts as none
_LOG_WEIGHT = 0.1  # of a natural logarithm of energy


class DctSpectrum:
    """189 features of an image of any size from 8 px, grey or RGB: coarse structure, and energy by frequency.

    Of the orthonormal DCT-II over colours, rows and columns, by colour (brightness and two differences):
    - the coefficients of the lowest frequencies, 8x8 and 4x4, with their signs, in the scale of means over the image;
    - log(1 + mean square) in 8x8 and 4x4 bands, without the one of the mean alone, which widen towards fine detail.
    """

    name = "dct_v1"
    resize = "none"
    is_published = False
    dim = sum(side**2 for side in _COARSE) + sum(side**2 - 1 for side in _BANDS)

    def __init__(self, device: torch.device) -> None:
        settings = (self.name, _COARSE, _BANDS, _COARSE_UNIT, _ENERGY_UNIT, _LOG_WEIGHT)
        self.digest = hashlib.sha256(repr(settings).encode()).hexdigest()  # of all that the formulas leave open
        self._device = device

    def __call__(self, images: Tensor) -> Tensor:
        """Return features, float32 [n, 189], of images, uint8 [n, 1 or 3, height, width]."""
        height, width = images.shape[2:]
        by_colour = torch.einsum("ij,njhw->nihw", self._matrix(3), images.float().expand(-1, 3, -1, -1))
        spectrum = self._matrix(height) @ by_colour @ self._matrix(width).T
        coarse = spectrum / (_COARSE_UNIT * math.sqrt(3 * height * width))
        energy = (spectrum / _ENERGY_UNIT).square()
        features = [coarse[:, colour, :side, :side].flatten(1) for colour, side in enumerate(_COARSE)]
        for colour, side in enumerate(_BANDS):
            bands = self._average(height, side) @ energy[:, colour] @ self._average(width, side).T
            features.append(_LOG_WEIGHT * bands.log1p().flatten(1)[:, 1:])
        return torch.cat(features, dim=1)

    def _matrix(self, size: int) -> Tensor:
        return dct_matrix(size).to(self._device)

    def _average(self, size: int, count: int) -> Tensor:
        return band_matrix(size, count).to(self._device)


@functools.cache
def dct_matrix(size: int) -> Tensor:
    """Return the orthonormal DCT-II, float32 [frequencies, positions]; row k has k half periods."""
    index = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * torch.outer(index, index + 0.5)) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.float()


def band_edges(size: int, count: int) -> list[int]:
    """Return the first frequency of each of `count` bands, and `size` at the end.

    Edge k is k (size / count)^(k / count), rounded down: each band has a frequency of its own, the first one the mean
    alone (below 2,048 px), and in large images they widen by about a constant factor.
    """
    return [math.floor(k * (size / count) ** (k / count) + 1e-9) for k in range(count + 1)]


@functools.cache
def band_matrix(size: int, count: int) -> Tensor:
    """Return what averages over the frequencies of each band, float32 [bands, frequencies]."""
    matrix, edges = torch.zeros(count, size), band_edges(size, count)
    for band, (first, end) in enumerate(itertools.pairwise(edges)):
        matrix[band, first:end] = 1 / (end - first)
    return matrix
