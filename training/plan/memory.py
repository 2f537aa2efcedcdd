"""What the backward passes of a step keep in memory, worked out without computing anything."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.config import DatasetSpec, RunConfig
from training.loss import path_lengths, r1_penalty
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.precision import Precision


def activation_bytes(config: RunConfig, spec: DatasetSpec, micro_batch: int, precision: Precision) -> dict[str, int]:
    """Bytes that each phase stores for its backward pass with so many pictures a pass, by the name of the phase."""
    with torch.device("meta"):
        G, D = Generator(config.generator, spec), Discriminator(config.discriminator, spec).to("meta")
    with FakeTensorMode(allow_non_fake_inputs=True):  # unlike the meta device it knows fused attention
        for network in (G, D):
            network.to_empty(device="cpu")
        phases = _phases(G, D, config, spec, micro_batch, precision)
        return {name: stored() for name, stored in phases.items()}


def _phases(
    G: Generator, D: Discriminator, config: RunConfig, spec: DatasetSpec, micro_batch: int, precision: Precision
) -> dict[str, Callable[[], int]]:
    z, c = torch.empty(micro_batch, G.z_dim), torch.empty(micro_batch, spec.label_dim)
    images = torch.empty(micro_batch, spec.channels, spec.height, spec.width)
    count = len(config.generator.layers) - config.performance.recomputed_stages
    recomputed = [
        layer
        for stage in list(G.synthesis.stages)[max(count, 0) :]
        for layer in stage.get_submodule("layers").children()
    ]
    networks = nn.ModuleList([G, D])

    def g_main() -> Tensor:
        return D(G.synthesis(G.mapping(z, c), dtype=precision.dtype), c, precision.dtype)

    def g_pl() -> Tensor:
        few = micro_batch // config.loss.pl_batch_shrink
        ws = G.mapping(z[:few], c[:few])
        with sdpa_kernel(SDPBackend.MATH):
            fakes = G.synthesis(ws)
            return path_lengths(fakes, ws, torch.empty_like(fakes))

    def d_r1() -> Tensor:
        reals = images.clone().requires_grad_()
        return r1_penalty(reals, D(reals, c))

    phases: dict[str, Callable[[], int]] = {
        "G_main": lambda: saved_bytes(networks, g_main, recomputed),
        "D_main": lambda: saved_bytes(networks, lambda: D(images, c, precision.dtype)),  # generated, then real ones
    }
    if config.loss.pl_weight > 0:
        phases["G_pl"] = lambda: saved_bytes(networks, g_pl)
    if config.loss.r1_gamma > 0:
        phases["D_r1"] = lambda: saved_bytes(networks, d_r1)
    return phases


def saved_bytes(network: nn.Module, run: Callable[[], Tensor], recomputed: Iterable[nn.Module] = ()) -> int:
    """Bytes that a call stores for its backward pass, each storage counted once, the network's own left out.

    Of layers that are recomputed their inputs count, and all that the largest of them stores.
    """
    own = {t.untyped_storage()._cdata for t in [*network.parameters(), *network.buffers()]}
    kept: dict[nn.Module | None, dict[int, Tensor]] = {None: {}}
    current: list[nn.Module | None] = [None]

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept.setdefault(current[-1], {})[tensor.untyped_storage()._cdata] = tensor
        return tensor

    def enter(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        keep(inputs[0])
        current.append(layer)

    def leave(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        current.pop()

    hooks = [h for m in recomputed for h in (m.register_forward_pre_hook(enter), m.register_forward_hook(leave))]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    for hook in hooks:
        hook.remove()
    totals = {layer: sum(t.untyped_storage().nbytes() for t in tensors.values()) for layer, tensors in kept.items()}
    return totals.pop(None) + max(totals.values(), default=0)
