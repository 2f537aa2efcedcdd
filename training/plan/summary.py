"""What a configuration costs: parameters, arithmetic and memory, worked out without training or data."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dnnlib.text import format_bytes
from torch_utils.distributed import local_device
from training.config import DatasetSpec, RunConfig
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.plan.memory import activation_bytes
from training.precision import resolve_precision

BYTES = 4  # of a float32


def summary(config: RunConfig, spec: DatasetSpec, world_size: int = 1) -> str:
    """Lines of text: parameters and FLOPs an image (forward) of both networks, and the memory of a process.

    The memory is that of the precision that this machine would use, in the phase that stores most.
    """
    micro_batch = config.schedule.micro_batch(world_size)
    with torch.device("meta"):
        G, D = Generator(config.generator, spec), Discriminator(config.discriminator, spec).to("meta")
        z, c = torch.empty(micro_batch, G.z_dim), torch.empty(micro_batch, spec.label_dim)
        images = torch.empty(micro_batch, spec.channels, spec.height, spec.width)
        runs: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
            "Generator": (G, lambda: G(z, c)),
            "Discriminator": (D, lambda: D(images, c)),
        }
        lines, weights = [], 0
        for name, (network, run) in runs.items():
            num_parameters = sum(p.numel() for p in network.parameters())
            gflop = count_flops(run) / micro_batch / 1e9
            lines.append(f"{name + ':':<15} {num_parameters:>12,} parameters, {gflop:.2f} GFLOP an image forward")
            weights += num_parameters * BYTES * (5 if network is G else 4)  # weights, gradient, Adam's two; and G_ema
    precision = resolve_precision(config.performance.precision, local_device())
    activations = max(activation_bytes(config, spec, micro_batch, precision).values())
    lines.append(
        f"Memory:         about {format_bytes(weights + activations)} a process in {precision.name}: {format_bytes(weights)} of "
        f"weights and optimizers, {format_bytes(activations)} for the {micro_batch} pictures of a pass"
    )
    return "\n".join(lines)


def count_flops(run: Callable[[], Tensor]) -> int:
    """Floating-point operations of a call; a multiplication with its addition counts as two."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()
