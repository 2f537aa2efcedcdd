"""Styles of seeds: the same seed gives the same styles every time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.networks.generator import Generator


@dataclass(frozen=True)
class Request:
    """How seeds become styles, the same for all images of a call."""

    class_index: int | None = None  # None = seed modulo the number of classes
    psi: float = 1.0  # truncation: 1 = full variety, 0 = the mean image
    cutoff: int | None = None  # truncate only so many of the first styles; None = all


def latents(seeds: Sequence[int], z_dim: int, device: torch.device) -> Tensor:
    """The latents of seeds, [seeds, z_dim], those of StyleGAN2-ADA."""
    rows = [np.random.RandomState(seed).randn(1, z_dim) for seed in seeds]
    return torch.as_tensor(np.concatenate(rows), dtype=torch.float32, device=device)


def labels(generator: Generator, seeds: Sequence[int], class_index: int | None = None) -> Tensor:
    """One-hot labels of seeds, [seeds, c_dim]; class None = seed modulo the number of classes."""
    c = torch.zeros(len(seeds), generator.c_dim, device=device_of(generator))
    if generator.c_dim:
        for row, seed in zip(c, seeds, strict=True):
            row[seed % generator.c_dim if class_index is None else class_index] = 1
    return c


@torch.no_grad()
def styles(generator: Generator, seeds: Sequence[int], request: Request) -> Tensor:
    """The styles of seeds, [seeds, num_ws, w_dim], computed in one batch."""
    z = latents(seeds, generator.z_dim, device_of(generator))
    return generator.mapping(z, labels(generator, seeds, request.class_index), request.psi, request.cutoff)


def styles_in_batches(generator: Generator, seeds: Sequence[int], request: Request, batch: int) -> Tensor:
    """The same, computed in batches: to the last bit those of images that are made in such batches."""
    return torch.cat(
        [styles(generator, seeds[start : start + batch], request) for start in range(0, len(seeds), batch)]
    )


def device_of(generator: Generator) -> torch.device:
    """Where a generator's weights are."""
    return next(generator.parameters()).device
