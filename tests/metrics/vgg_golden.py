"""Recorded values of VGG16 and LPIPS, and the random weights and images that they were recorded with."""

import functools
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from golden_data import arrays
from torch import Tensor, nn

from metrics.networks.lpips import Lpips
from metrics.networks.vgg16 import VGG16

DIGEST = "c6f147a15c0d0a7d9028f6074acd089f81cf45df1ed5ce1936955a1f87e4147f"

_DRAWN_AT_ONCE = 1 << 22


def empty_network() -> VGG16:
    """The network without weights."""
    with torch.device("meta"):
        return VGG16()


def random_state(part: str = "") -> dict[str, Tensor]:
    """The state, 138 million numbers, or the part of it whose names begin so; it follows from names and shapes."""
    shapes = {name: tuple(tensor.shape) for name, tensor in empty_network().state_dict().items()}
    return {name: torch.from_numpy(_draw(name, shape)) for name, shape in shapes.items() if name.startswith(part)}


def small_state() -> dict[str, Tensor]:
    """A state of the right names and shapes that is small as a file: every tensor repeats its number in the list."""
    expected = empty_network().state_dict()
    return {name: torch.tensor(float(i)).expand(value.shape) for i, (name, value) in enumerate(expected.items())}


@functools.cache
def random_convolutions() -> nn.Sequential:
    """The convolutions with random weights."""
    network = empty_network()
    network.load_state_dict(random_state("features"), strict=False, assign=True)
    return network.features.requires_grad_(False)


def recorded() -> dict[str, np.ndarray]:
    """What other programs found."""
    return arrays("metrics/vgg_lpips_random_v1")


def channel_weights() -> list[Tensor]:
    """The published weights of LPIPS."""
    return [torch.from_numpy(arrays("metrics/lpips_v0.1_vgg")[f"lin{index}"]) for index in range(5)]


def random_lpips() -> Lpips:
    """LPIPS with random convolutions and the published weights of their channels."""
    return Lpips(random_convolutions(), channel_weights())


def save_channel_weights(path: Path) -> Path:
    """Write the weights of LPIPS as in the published file."""
    state = {f"lin{i}.model.1.weight": weights.view(1, -1, 1, 1) for i, weights in enumerate(channel_weights())}
    torch.save(state, path)
    return path


def waves(which: str, count: int = 6, size_px: int = 64) -> Tensor:
    """Images of the set "a" or "b": sums of three waves a channel, whole numbers 0..255, float [n, 3, size, size]."""
    seed, highest, brightness = {"a": (101, 0.7, 0.0), "b": (202, 0.9, 0.06)}[which]
    random = np.random.RandomState(seed)
    y, x = np.meshgrid(np.arange(size_px), np.arange(size_px), indexing="ij")
    images = np.zeros((count, 3, size_px, size_px))
    for image in images:
        base = random.uniform(0.3, 0.6) + brightness
        for channel in image:
            channel += base + random.uniform(-0.1, 0.1)
            for _ in range(3):
                (fy, fx), phase = random.uniform(0, highest, 2), random.uniform(0, 2 * np.pi)
                channel += random.uniform(0.05, 0.25) * np.cos(fy * y + fx * x + phase)
    return torch.from_numpy(np.clip(np.rint(images * 255), 0, 255)).float()


def neighbours_of(images: Tensor) -> Tensor:
    """Images that differ from others by two grey levels of noise, float, not rounded."""
    noise = np.random.RandomState(5).standard_normal(tuple(images.shape)) * 2
    return (images + torch.from_numpy(noise.astype(np.float32))).clamp(0, 255)


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.RandomState([0, zlib.crc32(name.encode())])
    std = 0.05 if name.endswith(".bias") else math.sqrt(2 / math.prod(shape[1:]))
    values = np.empty(math.prod(shape), np.float32)
    for start in range(0, len(values), _DRAWN_AT_ONCE):  # in parts, because what is drawn has twice the size
        part = values[start : start + _DRAWN_AT_ONCE]
        part[:] = random.standard_normal(len(part)) * std
    return values.reshape(shape)
