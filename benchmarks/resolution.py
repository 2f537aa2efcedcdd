"""Times training steps of the hybrid and of pure Linformer by image size, at reduced widths: cost per image and per pixel."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.timing import interleaved, saved_bytes, warm_up
from training.config import DatasetSpec, DiscriminatorConfig, GeneratorConfig, RunConfig
from training.latents import Latents
from training.losses import build_phases
from training.networks.hybrid import HybridConfig
from training.phases import MicroBatch
from training.state import TrainState

BATCH, STYLE_WIDTH, R1_INTERVAL = 2, 64, 16
ATTENTION_WIDTHS = (64, 32, 32, 16, 16, 16, 16)  # of the stages from 8 px
HEADER = f"{'generator':<12}{'px':>6}{'s per image':>13}{'us per pixel':>14}{'stored MB per image':>21}{'bytes per pixel':>17}"


def generator_config(kind: str, spec: DatasetSpec) -> GeneratorConfig:
    """Return the hybrid, with attention up to 32 px, or Linformer in all stages."""
    if kind == "hybrid":
        return HybridConfig(
            ATTENTION_WIDTHS[:3],
            (1, 2, 2),
            channel_base=2048,
            channel_max=64,
            head_width=16,
            w_dim=STYLE_WIDTH,
            z_dim=STYLE_WIDTH,
        )
    stages = len(spec.stage_sizes)
    layers = (1, *[2] * (stages - 1))
    return GeneratorConfig(
        ATTENTION_WIDTHS[:stages], layers, linformer=True, head_width=16, w_dim=STYLE_WIDTH, z_dim=STYLE_WIDTH
    )


def calls_of(kind: str, side: int) -> tuple[dict[str, Callable[[], object]], int]:
    """Return the phases of a step, by name, and the bytes that the generator stores for its backward pass."""
    spec, cpu = DatasetSpec(side, side, 3), torch.device("cpu")
    discriminator = DiscriminatorConfig(channel_base=2048, channel_max=64, mbstd_group=BATCH)
    config = RunConfig(generator=generator_config(kind, spec), discriminator=discriminator)
    config = config.changed(loss={"mixing_prob": 0.0}, augment={"mode": "noaug"})
    state = TrainState(config, spec, cpu)
    z, c = torch.randn(BATCH, STYLE_WIDTH), torch.zeros(BATCH, 0)
    batch = MicroBatch(torch.rand(BATCH, 3, side, side) * 2 - 1, c, Latents(z, c, None, 1, 0))
    stored = saved_bytes(state.G, lambda: state.G(z))
    return {phase.name: functools.partial(phase.step, [batch]) for phase in build_phases(state)}, stored


def seconds_per_image(times: dict[str, list[float]]) -> float:
    """Return the fastest main step of G and of D with their part of R1, per image."""
    return (min(times["G_main"]) + min(times["D_main"]) + min(times["D_r1"]) / R1_INTERVAL) / BATCH


@click.command()
@click.option("--hybrid", "hybrid_px", default="128,256,512", show_default=True, help="Image sizes, px.")
@click.option("--linformer", "linformer_px", default="128,256", show_default=True, help="Image sizes, px; at most 256.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Turns of each phase.")
@click.option("--threads", type=click.IntRange(1), help="Of the CPU.  [default: PyTorch's]")
def main(hybrid_px: str, linformer_px: str, rounds: int, threads: int | None) -> None:
    """Time the steps of both generators by image size, on the CPU in float32, in batches of 2."""
    if threads:
        torch.set_num_threads(threads)
    click.echo(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n{HEADER}")
    for kind, sizes in (("hybrid", hybrid_px), ("linformer", linformer_px)):
        for side in map(int, filter(None, sizes.split(","))):
            calls, stored = calls_of(kind, side)
            cpu = torch.device("cpu")
            sec = seconds_per_image(interleaved(warm_up(calls, cpu), cpu, rounds, 0))
            pixels = side * side
            click.echo(
                f"{kind:<12}{side:>6}{sec:>13.3f}{1e6 * sec / pixels:>14.2f}"
                f"{stored / BATCH / 1e6:>21.1f}{stored / BATCH / pixels:>17.0f}"
            )


if __name__ == "__main__":
    main()
