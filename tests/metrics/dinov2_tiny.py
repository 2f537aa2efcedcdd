"""A tiny DINOv2 with weights that are the same on every machine, and images, as they were recorded."""

import math
import zlib

import numpy as np
import torch
from torch import Tensor

from metrics.networks.dinov2 import Dinov2, TransformerSize

SIZES = {
    "native": TransformerSize(width=32, depth=2, heads=4, patch_px=4, trained_grid=4, input_px=16),
    "resized": TransformerSize(width=32, depth=2, heads=4, patch_px=4, trained_grid=9, input_px=16),
}


def draw(name: str, shape: tuple[int, ...]) -> Tensor:
    """The recorded kind of weights: a tensor follows from its name and shape alone."""
    values = np.random.RandomState([0, zlib.crc32(name.encode())]).standard_normal(shape)
    if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "gamma")):
        values = 1 + 0.2 * values
    elif name.endswith("weight"):
        values /= math.sqrt(math.prod(shape[1:]))
    else:
        values *= 0.5 if name in ("cls_token", "pos_embed") else 0.1
    return torch.from_numpy(values.astype(np.float32))


def state_of(case: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        state = Dinov2(SIZES[case]).state_dict()
    return {name: draw(name, tuple(value.shape)) for name, value in state.items()}


def images() -> Tensor:
    """The images that were recorded, which shrink on their way into the network."""
    return torch.from_numpy(np.random.RandomState(7).randint(0, 256, (3, 3, 24, 20)).astype(np.uint8))
