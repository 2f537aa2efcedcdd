"""Times the encoder layer of every stage of a preset, with and without Linformer: as published and as ours."""

import functools
import sys
from collections.abc import Callable, Iterator
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


def ways(layer: EncoderLayer, x: Tensor, w: Tensor, mode: Mode, flops: float, is_baseline: bool) -> tuple[Way, Way]:
    """Forward, and forward with backward; `flops` are those of a forward pass."""
    batch, x = len(x), x.detach().to(mode.dtype).requires_grad_()
    run: Callable[[Tensor, Tensor], Tensor] = forward_pass(layer, mode.performance, x.device)
    if is_baseline:
        run = functools.partial(baseline.encoder_layer, layer)
    trained = [x, *layer.parameters()]
    weight = torch.randn_like(x)

    def forward() -> None:
        with mode.active(), torch.no_grad():
            run(x, w)

    def both() -> None:
        with mode.active():
            torch.autograd.grad(run(x, w), trained, weight)

    def saved() -> int:
        with mode.active():
            return saved_bytes(layer, lambda: run(x, w))

    return (
        Way(forward, batch, mode, flops),
        Way(both, batch, mode, BACKWARD_FLOPS * flops, None if mode.graphs else saved),
    )


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
    modes = {BASELINE: Mode("fp32"), **{mode.name: mode for mode in settings.modes}}
    with torch.device("meta"):
        sketch = EncoderLayer(config, num_tokens, width, width)
    for batch in settings.batches:
        forget_compiled(settings.modes)
        x = torch.randn(batch, num_tokens, width, device=settings.device)
        w = torch.randn(batch, config.w_dim, device=settings.device)
        flops = count_flops(functools.partial(sketch, x.to("meta"), w.to("meta")))
        found = {}
        for name, mode in modes.items():
            layer = EncoderLayer(config, num_tokens, width, width).to(settings.device)
            found[name] = ways(layer, x, w, mode, flops, name == BASELINE)
        for index, suffix in enumerate(("", " +bwd")):
            yield from compared(settings, preset_name, what + suffix, {name: way[index] for name, way in found.items()})


@click.command()
@shared_options
@modes_option
def main(**options: Any) -> None:
    """Time the encoder layers of the presets' stages, forward and with backward: as published and as ours, in turn."""
    run_benchmark(options, measure, PRESETS)


if __name__ == "__main__":
    main()
