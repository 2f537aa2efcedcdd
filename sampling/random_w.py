"""Random points of W: where a generator's styles lie, and how far they spread."""

import numpy as np
import torch
from torch import Tensor

from sampling.styles import device_of, labels
from training.networks.generator import Generator

_AT_ONCE = 4096


@torch.no_grad()
def random_w(generator: Generator, count: int, seed: int, class_index: int | None = None) -> Tensor:
    """Styles of random latents, [count, w_dim].

    Args:
        generator: In eval mode.
        count: How many.
        seed: They are the same for the same seed, but none of them is that of an image of `generate.py --seeds`.
        class_index: Of all; None = the classes in turn.
    """
    rows = np.random.default_rng(seed).standard_normal((count, generator.z_dim), dtype=np.float32)
    z = torch.from_numpy(rows).to(device_of(generator))
    c = labels(generator, range(count), class_index)
    parts = zip(z.split(_AT_ONCE), c.split(_AT_ONCE), strict=True)
    return torch.cat([generator.mapping(some, label)[:, 0] for some, label in parts])
