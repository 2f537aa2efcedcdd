"""Times the encoder layer of every stage of a preset, with and without Linformer: as published and as ours."""

import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import baseline
from benchmarks.common import Settings, images_of, modes_option, run_benchmark, shared_options
from benchmarks.compare import Way, compared
from benchmarks.modes import BASELINE, Mode, forget_compiled
from benchmarks.rows import Row
from benchmarks.timing import saved_bytes
from training.compilation import forward_pass
from training.config import GeneratorConfig
from training.networks.attention import EncoderLayer
from training.plan.summary import count_flops
from training.presets import preset

PRESETS = ("cifar", "celeba64", "church128")
BACKWARD_FLOPS = 3  # of forward and backward together by those of forward


@dataclass(frozen=True)
class Workload:
    """An encoder layer and what goes into it, in one mode."""

    config: GeneratorConfig
    num_tokens: int
    width: int
    batch: int
    mode: Mode
    is_baseline: bool
    device: torch.device

    def layer(self) -> EncoderLayer:
        """Return the layer with weights of its own."""
        return EncoderLayer(self.config, self.num_tokens, self.width, self.width)

    def ways(self) -> tuple[Way, Way]:
        """Forward, and forward with backward."""
        layer = self.layer().to(self.device)
        x = torch.randn(self.batch, self.num_tokens, self.width, device=self.device, dtype=self.mode.dtype)
        w = torch.randn(self.batch, self.config.w_dim, device=self.device)
        run: Callable[[Tensor, Tensor], Tensor] = forward_pass(layer, self.mode.performance, self.device)
        if self.is_baseline:
            run = functools.partial(baseline.encoder_layer, layer)
        trained = [x.requires_grad_(), *layer.parameters()]
        weight = torch.randn_like(x)

        def forward() -> None:
            with self.mode.active(), torch.no_grad():
                run(x, w)

        def both() -> None:
            with self.mode.active():
                torch.autograd.grad(run(x, w), trained, weight)

        def saved() -> int:
            with self.mode.active():
                return saved_bytes(layer, lambda: run(x, w))

        flops = self.flops()
        return Way(forward, self.batch, self.mode, flops), Way(
            both, self.batch, self.mode, BACKWARD_FLOPS * flops, None if self.mode.graphs else saved
        )

    def flops(self) -> int:
        """Floating-point operations of a forward pass of ours."""
        with torch.device("meta"):
            layer = self.layer()
            x, w = torch.empty(self.batch, self.num_tokens, self.width), torch.empty(self.batch, self.config.w_dim)
            return count_flops(lambda: layer(x, w))


def measure(settings: Settings) -> Iterator[Row]:
    """Yield all stages of all presets; a stage that an earlier preset had too is left out."""
    seen = set()
    for name in settings.presets:
        spec = images_of(name)
        config = preset(name, spec).generator
        for (height, width_px), width in zip(spec.stage_sizes, config.widths, strict=True):
            linformer = " linformer" if config.is_projected(height * width_px) else ""
            what = f"{width_px}x{height}x{width}{linformer}"
            if what not in seen:
                seen.add(what)
                yield from measure_stage(settings, name, what, config, height * width_px, width)


def measure_stage(
    settings: Settings, preset_name: str, what: str, config: GeneratorConfig, num_tokens: int, width: int
) -> Iterator[Row]:
    """One stage at each batch: forward, then forward with backward."""
    for batch in settings.batches:
        forget_compiled(settings.modes)
        modes = {BASELINE: Mode("fp32"), **{mode.name: mode for mode in settings.modes}}
        ways = {
            name: Workload(config, num_tokens, width, batch, mode, name == BASELINE, settings.device).ways()
            for name, mode in modes.items()
        }
        for index, suffix in enumerate(("", " +bwd")):
            yield from compared(settings, preset_name, what + suffix, {name: way[index] for name, way in ways.items()})


@click.command()
@shared_options
@modes_option
def main(**options: Any) -> None:
    """Time the encoder layers of the presets' stages, forward and with backward: as published and as ours, in turn."""
    run_benchmark(options, measure, PRESETS)


if __name__ == "__main__":
    main()
