"""Embeddings of images whose squared distances measure how different they look: the discriminator's, or LPIPS."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dnnlib.paths import user_path
from metrics.networks.lpips import SMALLEST_PX, Lpips, read_channel_weights
from metrics.networks.vgg16 import load_vgg16
from metrics.weights.published import LPIPS, VGG16, Source, require
from training.networks.discriminator import Discriminator

Embedding = Callable[[Tensor], Sequence[Tensor]]  # images, -1..1, [n, channels, height, width], to parts [n, features]

_NEVER_ZERO = 1e-8


def discriminator_embedding(discriminator: Discriminator) -> Embedding:
    """The feature maps of a discriminator as an embedding; it does not depend on labels.

    As in LPIPS, the channels at each position are scaled to length 1; squared distances are means over blocks and
    positions, 0..4.
    """

    def embed(images: Tensor) -> list[Tensor]:
        maps = discriminator.features(images)
        return [
            x.flatten(1) * (len(maps) * x.shape[2] * x.shape[3]) ** -0.5
            for x in (x * (x.square().sum(dim=1, keepdim=True) + _NEVER_ZERO).rsqrt() for x in maps)
        ]

    return embed


def lpips_embedding(channel_weights: str | Path, height: int, width: int, device: torch.device) -> Embedding:
    """LPIPS: channel weights from a file, VGG16 from the cache or $STYLEFORMER_VGG16.

    Raises ValueError if a file is missing or not of this kind, or if images are too small.
    """
    path = user_path(channel_weights)
    if not path.is_file():
        raise ValueError(f"--lpips={path}: there is no such file; give the {LPIPS.what} ({LPIPS.name})")
    if min(height, width) < SMALLEST_PX:
        raise ValueError(
            f"--lpips: images of {width}x{height} px are too small; the minimum is {SMALLEST_PX} px per side"
        )
    weights = [x.to(device) for x in read_channel_weights(path)]
    vgg16 = load_vgg16(require(VGG16, Source()).path).requires_grad_(False)
    lpips = Lpips(vgg16.features.to(device), weights)
    return lambda images: lpips.embed((images + 1) * 127.5)


def squared_distances(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Squared distances between two embeddings, broadcast, [n]."""
    return torch.stack([(x - y).square().sum(dim=1) for x, y in zip(a, b, strict=True)]).sum(dim=0)
