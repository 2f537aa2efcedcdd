"""Directions of W that change images most, found in closed form (Shen & Zhou, SeFa, arXiv 2007.06600)."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dnnlib.files import atomic_write
from training.networks.attention import EncoderLayer
from training.networks.generator import Stage, SynthesisNetwork
from training.networks.layers import EqualizedLinear


@dataclass(frozen=True)
class Directions:
    """Orthonormal directions of W, those of the largest effect first."""

    layers: tuple[int, ...]  # the styles that are moved, as counted in ws
    vectors: Tensor  # [count, w_dim], each of length 1
    eigenvalues: Tensor  # [count]: squared change of all style factors of those layers for a step of length 1
    spreads: Tensor  # [count]: standard deviation of w along each, the unit of a step

    def move(self, ws: Tensor, index: int, steps: float) -> Tensor:
        """Styles [batch, num_ws, w_dim] moved along a direction in its layers by so many standard deviations of w."""
        moved = ws.clone()
        moved[:, list(self.layers)] += steps * self.spreads[index] * self.vectors[index]
        return moved

    def save(self, path: Path) -> None:
        """Write them as .npz, of arrays named as the fields."""
        with atomic_write(path) as file:
            np.savez(
                file,
                layers=np.array(self.layers),
                vectors=self.vectors.cpu().numpy(),
                eigenvalues=self.eigenvalues.cpu().numpy(),
                spreads=self.spreads.cpu().numpy(),
            )

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Self:
        """Read what `save` wrote; raises ValueError for another file."""
        path = Path(path).expanduser()
        try:
            with np.load(path, allow_pickle=False) as arrays:
                layers = tuple(int(layer) for layer in arrays["layers"])
                names = ("vectors", "eigenvalues", "spreads")
                tensors = [torch.from_numpy(arrays[name]).float().to(device) for name in names]
        except (OSError, EOFError, KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path}: not directions as `generate.py directions` writes them to directions.npz, or damaged"
            ) from error
        count = len(tensors[0]) if tensors[0].ndim == 2 else 0
        if not count or not layers or min(layers) < 0 or any(tensor.shape != (count,) for tensor in tensors[1:]):
            raise ValueError(f"{path}: its directions, layers and spreads do not belong together; find them again")
        return cls(layers, *tensors)


def affine_layers(synthesis: SynthesisNetwork) -> list[list[EqualizedLinear]]:
    """The linear maps that read each style: the encoder layer's of that number, and that of a stage's ToRGB before it."""
    readers: list[list[EqualizedLinear]] = [[] for _ in range(synthesis.num_ws)]
    index = 0
    for stage in synthesis.stages:
        assert isinstance(stage, Stage)
        for layer in stage.layers:
            assert isinstance(layer, EncoderLayer)
            readers[index].append(layer.affine)
            index += 1
        readers[index].append(stage.to_rgb.affine)
    return readers


def find_directions(synthesis: SynthesisNetwork, layers: Sequence[int], count: int, samples: Tensor) -> Directions:
    """The directions along which the style factors of some layers change most: eigenvectors of A^T A (equation 6).

    A has the weights of all linear maps that read these styles, one below the other. The sign of an eigenvector is
    arbitrary; here its largest component is positive.

    Args:
        synthesis: Whose weights to take.
        layers: Which styles, counted as in ws.
        count: How many, at most w_dim.
        samples: Random w, [samples, w_dim], to measure their spread.
    """
    readers = affine_layers(synthesis)
    weights = torch.cat([affine.weight * affine.weight_gain for layer in layers for affine in readers[layer]]).double()
    eigenvalues, vectors = torch.linalg.eigh(weights.T @ weights)  # ascending, vectors in columns
    chosen = vectors.T.flip(0)[:count]
    largest = chosen.gather(1, chosen.abs().argmax(dim=1, keepdim=True))
    chosen = (chosen * largest.sign()).float()
    spreads = (samples @ chosen.T).std(dim=0, correction=0)
    return Directions(tuple(layers), chosen, eigenvalues.flip(0)[:count].clamp(min=0).float(), spreads)


def steps(strength: float, columns: int) -> list[float]:
    """Evenly spaced steps from -strength to strength; the middle one is exactly 0. Raises ValueError for an even number."""
    if columns % 2 == 0:
        raise ValueError(f"--steps={columns}: only an odd number of images has the seed's own in the middle")
    half = columns // 2
    return [strength * k / half for k in range(-half, half + 1)]
