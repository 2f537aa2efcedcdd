"""Times generating images and writing them: as published, one seed after the other, and as ours, in batches and threads."""

import contextlib
import copy
import io
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import baseline
from benchmarks.common import Settings, images_of, modes_option, run_benchmark, shared_options
from benchmarks.compare import Way, compared
from benchmarks.modes import BASELINE, Mode
from benchmarks.rows import Row
from dnnlib.images.writer import write_image
from dnnlib.parallel import available_cpus
from sampling.renderer import MAX_THREADS, Renderer, Request, write_images
from torch_utils.images import to_uint8
from training.compilation import Run, forward_pass
from training.networks.generator import Generator
from training.presets import preset

PRESETS = ("cifar", "celeba64")
BATCH = {"cpu": "32", "cuda": "256"}
FILES, QUICK_FILES = 128, 4  # images written in a turn


@torch.no_grad()
def published_image(generator: Generator, z: Tensor) -> np.ndarray:
    """One image, uint8 [height, width, channels]."""
    image = baseline.generator(generator, z, torch.zeros(1, generator.c_dim, device=z.device), "const")
    return to_uint8(image)[0].permute(1, 2, 0).cpu().numpy()


def write_published(generator: Generator, z: Tensor, folder: Path) -> None:
    """One image after the other: generated, then written."""
    for seed, latent in enumerate(z):
        Image.fromarray(published_image(generator, latent[None])).save(folder / f"seed{seed:04d}.png")


@torch.no_grad()
def our_images(generator: Generator, synthesis: Run, z: Tensor, mode: Mode) -> Tensor:
    """Images of one pass, uint8 [batch, channels, height, width]."""
    with mode.active():
        ws = generator.mapping(z, torch.zeros(len(z), generator.c_dim, device=z.device))
        return to_uint8(synthesis(ws, "const", mode.dtype)).cpu()


def write_ours(generator: Generator, count: int, folder: Path, batch: int) -> None:
    """What generate.py does, without loading the network."""
    seeds = list(range(count))
    batches = Renderer(generator, "const", batch).seed_batches(seeds, Request())
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        write_images(batches, [f"seed{seed:04d}" for seed in seeds], folder, "png")


def generating(settings: Settings, generator: Generator, batch: int) -> dict[str, Way]:
    """From latents to images in the CPU's memory."""
    z = torch.randn(batch, generator.z_dim, device=settings.device)

    def ours(mode: Mode) -> Way:
        network = copy.deepcopy(generator)
        synthesis = forward_pass(network.synthesis, mode.performance, settings.device)
        return Way(lambda: our_images(network, synthesis, z, mode), batch)

    plain = Way(lambda: published_image(generator, z[:1]), 1)
    return {BASELINE: plain, **{mode.name: ours(mode) for mode in settings.modes}}


def writing(pixels: np.ndarray, folder: Path) -> dict[str, Way]:
    """Images in memory, uint8 [count, height, width, channels], to PNG files."""

    def published() -> None:
        for index, image in enumerate(pixels):
            Image.fromarray(image).save(folder / f"seed{index:04d}.png")

    def ours() -> None:
        with ThreadPoolExecutor(min(available_cpus(), MAX_THREADS)) as pool:
            list(pool.map(write_image, (folder / f"seed{index:04d}.png" for index in range(len(pixels))), pixels))

    return {BASELINE: Way(published, len(pixels)), "threads": Way(ours, len(pixels))}


def measure_preset(settings: Settings, name: str, batch: int, folder: Path) -> Iterator[Row]:
    """Generating, writing, and both together."""
    spec = images_of(name)
    generator = Generator(preset(name, spec).generator, spec).to(settings.device).eval().requires_grad_(False)
    count = QUICK_FILES if settings.is_quick else FILES
    z = torch.randn(count, generator.z_dim, device=settings.device)
    pixels = (
        our_images(generator, generator.synthesis, z[:batch], Mode("fp32")).permute(0, 2, 3, 1).contiguous().numpy()
    )
    pixels = np.concatenate([pixels] * -(-count // len(pixels)))[:count]
    both = {
        BASELINE: Way(lambda: write_published(generator, z, folder), count),
        "generate.py": Way(lambda: write_ours(generator, count, folder, batch), count),
    }
    phases = {"generate": generating(settings, generator, batch), "png": writing(pixels, folder), "generate+png": both}
    for phase, ways in phases.items():
        yield from compared(settings, name, phase, ways, with_memory=phase == "generate")


def measure(settings: Settings) -> Iterator[Row]:
    """Yield all presets and batches; the images go into a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        for name in settings.presets:
            for batch in settings.batches:
                yield from measure_preset(settings, name, batch, Path(folder))


@click.command()
@shared_options
@modes_option
def main(**options: Any) -> None:
    """Time generating and writing images: as published, one seed after the other, and as ours, in batches."""
    run_benchmark(options, measure, PRESETS, BATCH)


if __name__ == "__main__":
    main()
