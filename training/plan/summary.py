"""Parameters and FLOPs of the networks of a configuration, counted without training or data."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from training.config import DatasetSpec, RunConfig
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.registry import create


def summary(config: RunConfig, spec: DatasetSpec) -> str:
    """Return two lines of text: parameters of both networks and FLOPs of their forward passes per image."""
    networks = meta_networks(config, spec)
    lines = []
    for network, flops in zip(networks, forward_flops(*networks, spec), strict=True):
        num_parameters = sum(p.numel() for p in network.parameters())
        name = f"{type(network).__name__}:"
        lines.append(f"{name:<15} {num_parameters:>12,} parameters, {flops / 1e9:.2f} GFLOP per image forward")
    return "\n".join(lines)


def meta_networks(config: RunConfig, spec: DatasetSpec) -> tuple[Generator, Discriminator]:
    """Return both networks on the meta device, without memory for their weights."""
    with torch.device("meta"):
        G = create("generator", config.generator.kind, config.generator, spec)
        return G, create("discriminator", config.discriminator.kind, config.discriminator, spec).to("meta")


def forward_flops(G: Generator, D: Discriminator, spec: DatasetSpec) -> tuple[float, float]:
    """Return the FLOPs per image in the forward pass of two networks on the meta device."""
    with torch.device("meta"):
        z, c = torch.empty(1, G.z_dim), torch.empty(1, spec.label_dim)
        image = torch.empty(1, spec.channels, spec.height, spec.width)
        return count_flops(lambda: G(z, c)), count_flops(lambda: D(image, c))


def count_flops(run: Callable[[], Tensor]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()
