"""Directions of W that change images most, in closed form (Shen & Zhou, SeFa, arXiv 2007.06600), and their images."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dnnlib.files import atomic_write
from dnnlib.images.captions import sheet
from dnnlib.images.writer import write_image
from dnnlib.paths import user_path
from sampling.output import naming
from sampling.renderer import Renderer, Request, device_of, random_w
from training.networks.generator import Generator

_FIELDS = ("vectors", "eigenvalues", "spreads")
_SAMPLES = 5000  # random w that measure the spread of w


@dataclass(frozen=True)
class Directions:
    """Orthonormal directions of W, by decreasing effect."""

    layers: tuple[int, ...]  # the styles that are moved, as indices of ws
    vectors: Tensor  # [count, w_dim], each of length 1
    eigenvalues: Tensor  # [count]: squared change of all style factors of those layers per unit step
    spreads: Tensor  # [count]: standard deviation of w along each, the unit of a step

    def move(self, ws: Tensor, index: int, steps: float) -> Tensor:
        """Styles [batch, num_ws, w_dim] moved along a direction by `steps` standard deviations of w."""
        moved = ws.clone()
        moved[:, list(self.layers)] += steps * self.spreads[index] * self.vectors[index]
        return moved

    def save(self, path: Path) -> None:
        with naming(path), atomic_write(path) as file:
            arrays = {name: getattr(self, name).cpu().numpy() for name in _FIELDS}
            np.savez(file, layers=np.array(self.layers), **arrays)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Self:
        """Read what `save` wrote; raises ValueError for another file."""
        path = user_path(path)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                layers = tuple(int(layer) for layer in arrays["layers"])
                tensors = [torch.from_numpy(arrays[name]).float().to(device) for name in _FIELDS]
        except (OSError, EOFError, KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: not a directions.npz of `generate.py directions`, or damaged") from error
        count = len(tensors[0]) if tensors[0].ndim == 2 else 0
        if not count or not layers or min(layers) < 0 or any(tensor.shape != (count,) for tensor in tensors[1:]):
            raise ValueError(f"{path}: the shapes of its arrays do not match; find the directions again")
        if not all(tensor.isfinite().all() for tensor in tensors):
            raise ValueError(f"{path}: its arrays have values that are not finite; find the directions again")
        return cls(layers, *tensors)


def find_directions(generator: Generator, layers: Sequence[int], count: int, samples: Tensor) -> Directions:
    """The directions along which the style factors of some layers change most: eigenvectors of A^T A (equation 6).

    A stacks the weights of all linear maps that read these styles. The sign of each eigenvector makes its largest
    component positive. There are at most w_dim directions; random w, [samples, w_dim], measure their spread.
    """
    readers = generator.style_layers()
    weights = torch.cat([affine.weight * affine.weight_gain for layer in layers for affine in readers[layer]]).double()
    eigenvalues, vectors = torch.linalg.eigh(weights.T @ weights)  # ascending, vectors in columns
    chosen = vectors.T.flip(0)[:count]
    largest = chosen.gather(1, chosen.abs().argmax(dim=1, keepdim=True))
    chosen = (chosen * largest.sign()).float()
    spreads = (samples @ chosen.T).std(dim=0, correction=0)
    return Directions(tuple(layers), chosen, eigenvalues.flip(0)[:count].clamp(min=0).float(), spreads)


def choose_directions(
    generator: Generator, file: str | None, layers: Sequence[int], count: int, labels: Tensor | None = None
) -> Directions:
    """The directions of a file, or of the weights. Raises ValueError if they do not fit the generator.

    `labels`, [n, c_dim], are those of the random w that a step is measured by, in turn; None = the classes.
    """
    if file is None:
        if count > generator.w_dim:
            raise ValueError(f"--count={count}: W has {generator.w_dim} dimensions, and at most that many directions")
        return find_directions(generator, layers, count, random_w(generator, _SAMPLES, 0, labels))
    directions = Directions.load(file, device_of(generator))
    if directions.vectors.shape[1] != generator.w_dim or max(directions.layers) >= generator.num_ws:
        raise ValueError(
            f"--directions={file}: directions of {directions.vectors.shape[1]} dimensions for styles up to "
            f"{max(directions.layers)}, but this network has styles 0-{generator.num_ws - 1} of {generator.w_dim} dimensions"
        )
    return directions


def steps(strength: float, columns: int) -> list[float]:
    """Evenly spaced steps from -strength to strength, with 0 in the middle. Raises ValueError for an even number."""
    if columns % 2 == 0:
        raise ValueError(f"--steps={columns} must be odd, so that the seed's own image is in the middle")
    half = columns // 2
    return [strength * k / half for k in range(-half, half + 1)]


def write_strips(
    renderer: Renderer,
    directions: Directions,
    seeds: Sequence[int],
    request: Request,
    amounts: Sequence[float],
    outdir: Path,
) -> None:
    """Write directions-NN.png for each direction, a row per seed and a column per amount, and directions.npz."""
    ws = renderer.styles(seeds, request)
    titles = [f"{amount:+.3g}" if amount else "0" for amount in amounts]
    for index in range(len(directions.vectors)):
        columns = [renderer.images(directions.move(ws, index, amount), seeds) for amount in amounts]
        images = torch.stack(columns, dim=1).permute(0, 1, 3, 4, 2).numpy()  # [seeds, amounts, height, width, channels]
        first = list(zip(images[0], titles, strict=True))
        path = outdir / f"directions-{index:02d}.png"
        write_image(path, sheet([first, *([(image, "") for image in row] for row in images[1:])]))
        effect, spread = float(directions.eigenvalues[index]), float(directions.spreads[index])
        print(f"{path}: eigenvalue {effect:.3g}, standard deviation of w along it {spread:.3g}")
    directions.save(outdir / "directions.npz")
    print(f"To apply them again: --directions={outdir / 'directions.npz'}")
