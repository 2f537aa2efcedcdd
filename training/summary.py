"""What a configuration costs: parameters, arithmetic and memory, worked out without training or data."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dnnlib.text import format_bytes
from training.config import DatasetSpec, RunConfig
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator

BYTES = 4  # of a float32


def summary(config: RunConfig, spec: DatasetSpec, world_size: int = 1) -> str:
    """Lines of text: parameters and FLOPs an image (forward) of both networks, and the memory of a process."""
    with torch.device("meta"):
        G, D = Generator(config.generator, spec), Discriminator(config.discriminator, spec).to("meta")
        micro_batch = config.schedule.micro_batch(world_size)
        z, c = torch.empty(micro_batch, G.z_dim), torch.empty(micro_batch, spec.label_dim)
        images = torch.empty(micro_batch, spec.channels, spec.height, spec.width)
        runs: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
            "Generator": (G, lambda: G(z, c)),
            "Discriminator": (D, lambda: D(images, c)),
        }
        lines, weights, activations = [], 0, 0
        for name, (network, run) in runs.items():
            num_parameters = sum(p.numel() for p in network.parameters())
            gflop = count_flops(run) / micro_batch / 1e9
            lines.append(f"{name + ':':<15} {num_parameters:>12,} parameters, {gflop:.2f} GFLOP an image forward")
            weights += num_parameters * BYTES * (5 if network is G else 4)  # weights, gradient, Adam's two; and G_ema
            activations += saved_bytes(network, run)
    lines.append(
        f"Memory:         about {format_bytes(weights + activations)} a process in float32: {format_bytes(weights)} of weights "
        f"and optimizers, {format_bytes(activations)} for the {micro_batch} pictures of a pass"
    )
    return "\n".join(lines)


def count_flops(run: Callable[[], Tensor]) -> int:
    """Floating-point operations of a call; a multiplication with its addition counts as two."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def saved_bytes(network: nn.Module, run: Callable[[], Tensor]) -> int:
    """Bytes that a call stores for its backward pass, each storage counted once, the network's own left out."""
    own = {t.untyped_storage()._cdata for t in [*network.parameters(), *network.buffers()]}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
