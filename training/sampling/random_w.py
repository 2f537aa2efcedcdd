"""Random points of W: where a generator's styles lie, and how far they spread."""

import numpy as np
import torch
from torch import Tensor

from training.networks.generator import Generator

_AT_ONCE = 4096


@torch.no_grad()
def random_w(generator: Generator, count: int, seed: int, class_index: int | None = None) -> Tensor:
    """Styles of random latents, [count, w_dim].

    Args:
        generator: In eval mode.
        count: How many.
        seed: They are the same for the same seed, and none of them is that of a picture of `generate.py --seeds`.
        class_index: Of all; None = the classes in turn.
    """
    device = next(generator.parameters()).device
    latents = torch.from_numpy(np.random.default_rng(seed).standard_normal((count, generator.z_dim), dtype=np.float32))
    classes = torch.arange(count) % max(generator.c_dim, 1)
    if class_index is not None:
        classes[:] = class_index
    parts = [
        generator.mapping(z.to(device), one_hot(chosen, generator.c_dim).to(device))[:, 0]
        for z, chosen in zip(latents.split(_AT_ONCE), classes.split(_AT_ONCE), strict=True)
    ]
    return torch.cat(parts)


def one_hot(classes: Tensor, c_dim: int) -> Tensor:
    """Labels of classes, float [count, c_dim]; of length 0 for a network without classes."""
    return torch.eye(c_dim)[classes] if c_dim else torch.zeros(len(classes), 0)
