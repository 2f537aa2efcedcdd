"""The cost of a configuration: parameters and FLOPs, counted; speed and memory, measured in a few steps."""

import resource
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dnnlib.text import format_bytes
from training.config import DatasetSpec, RunConfig
from training.data.stream import ImageDataset
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.plan.probe import Probe
from training.precision import resolve_precision
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


PROBE_STEPS = 10
CPU_FLOP = 1e12  # of a step that is still tried on the CPU


def speed(config: RunConfig, dataset: ImageDataset, device: torch.device, world_size: int = 1) -> str:
    """Return two lines of text: thousands of images per day, and memory per process, measured in a few steps.

    On the CPU large networks are not tried, as a step would take long.
    """
    batch, micro_batch = config.schedule.batch, config.schedule.micro_batch(world_size)
    image_flop = config.loss.training_flops(*forward_flops(*meta_networks(config, dataset.spec), dataset.spec))
    flop = image_flop * batch / world_size
    if device.type != "cuda" and flop > CPU_FLOP:
        reason = f"not measured: a step takes about {flop / 1e12:.2g} TFLOP, too many for the CPU"
        return f"Speed:          {reason}\nMemory:         not measured"
    probe = Probe(config, dataset, device, world_size)
    sec, count = probe.iteration_sec(PROBE_STEPS)
    others = f", {world_size} processes, without the exchange between them" if world_size > 1 else ""
    precision = resolve_precision(config.performance.precision, device).name
    if device.type == "cuda":
        peak_bytes = torch.cuda.max_memory_reserved(device)
    else:
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
    kimg_per_day = float(f"{batch / sec * 86.4:.3g}")
    return (
        f"Speed:          {kimg_per_day:,g} kimg per day: {sec:.3f} s per step of {batch} images on {device}, mean of "
        f"{count} step{'s' if count > 1 else ''}{others}\n"
        f"Memory:         {format_bytes(peak_bytes)} per process at most in these steps, measured on {device} in "
        f"{precision} with {micro_batch} images per forward pass"
    )
