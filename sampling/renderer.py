"""The way of `generate.py`: snapshot to network, seeds to styles, styles to images, images to files."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dnnlib.images.writer import save_grid, write_image
from dnnlib.parallel import available_cpus
from sampling.output import naming
from torch_utils.images import to_uint8
from torch_utils.ops import native
from training.checkpoint.snapshot import load_generator
from training.compilation import forward_pass, resolve_compile
from training.config import PerformanceConfig
from training.evaluation.finite import require_finite
from training.networks.generator import Generator
from training.precision import resolve_precision, set_arithmetic

MAX_THREADS = 8  # that write images
IMAGES_AHEAD = 16  # of each thread: waiting to be written
_RANDOM_W_BATCH = 4096


def load(network: str, ema: float | None = None) -> Generator:
    """The averaged generator of a snapshot, with this half-life or the first, on a GPU if there is one.

    Raises CheckpointError.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    set_arithmetic(resolve_precision("fp32", device))
    native.prepare(device)
    return load_generator(network, device, ema)


def device_of(generator: Generator) -> torch.device:
    return next(generator.parameters()).device


@dataclass(frozen=True)
class Request:
    """How seeds become styles, the same for all images of a call."""

    labels: Tensor | None = None  # [n, c_dim], that of a seed is seed modulo n; None = the classes in turn
    psi: float = 1.0  # truncation: 1 = full variety, 0 = the mean image
    cutoff: int | None = None  # truncate only the first `cutoff` styles; None = all


def latents(seeds: Sequence[int], z_dim: int, device: torch.device) -> Tensor:
    """The latents of seeds, [seeds, z_dim], equal to those of StyleGAN2-ADA."""
    rows = [np.random.RandomState(seed).randn(1, z_dim) for seed in seeds]
    return torch.as_tensor(np.concatenate(rows), dtype=torch.float32, device=device)


def labels(generator: Generator, seeds: Sequence[int], choices: Tensor | None = None) -> Tensor:
    """Labels of seeds, [seeds, c_dim]: row seed modulo n of `choices`, [n, c_dim]; None = the classes in turn."""
    if generator.c_dim == 0:
        return torch.zeros(len(seeds), 0, device=device_of(generator))
    choices = torch.eye(generator.c_dim, device=device_of(generator)) if choices is None else choices
    return choices[[seed % len(choices) for seed in seeds]]


@torch.no_grad()
def styles(generator: Generator, seeds: Sequence[int], request: Request) -> Tensor:
    """The styles of seeds, [seeds, num_ws, w_dim], computed in one batch."""
    z = latents(seeds, generator.z_dim, device_of(generator))
    return generator.mapping(z, labels(generator, seeds, request.labels), request.psi, request.cutoff)


@torch.no_grad()
def random_w(generator: Generator, count: int, seed: int, choices: Tensor | None = None) -> Tensor:
    """w of random latents, [count, w_dim]; they differ from those of `generate.py --seeds`."""
    rows = np.random.default_rng(seed).standard_normal((count, generator.z_dim), dtype=np.float32)
    z = torch.from_numpy(rows).to(device_of(generator)).split(_RANDOM_W_BATCH)
    c = labels(generator, range(count), choices).split(_RANDOM_W_BATCH)
    w = torch.cat([generator.mapping(*part)[:, 0] for part in zip(z, c, strict=True)])
    return require_finite(w, "the network's styles")


class Renderer:
    """Makes images of styles in batches; the random noise of an image depends on its noise seed alone."""

    def __init__(
        self,
        generator: Generator,
        noise_mode: str = "const",
        batch: int = 32,
        performance: PerformanceConfig | None = None,  # None = float32, not compiled
    ) -> None:
        device = device_of(generator)
        performance = performance or PerformanceConfig()
        if reason := resolve_compile(performance.compile, device)[1]:
            print(reason)
        precision = resolve_precision(performance.precision, device)
        set_arithmetic(precision)
        self.generator, self.noise_mode, self.dtype = generator, noise_mode, precision.dtype
        self.batch = 1 if noise_mode == "random" else batch
        self.synthesis = forward_pass(generator.synthesis, performance, device)

    def styles(self, seeds: Sequence[int], request: Request) -> Tensor:
        """The styles of seeds, [seeds, num_ws, w_dim], computed in the same batches as their images."""
        parts = [seeds[start : start + self.batch] for start in range(0, len(seeds), self.batch)]
        return torch.cat([styles(self.generator, part, request) for part in parts])

    @torch.no_grad()
    def batches(self, ws: Tensor, noise_seeds: Sequence[int]) -> Iterator[Tensor]:
        """Yield the images of styles [count, num_ws, w_dim] as uint8 [batch, channels, height, width] on the CPU."""
        for part, seed in zip(ws.split(self.batch), noise_seeds[:: self.batch], strict=True):
            torch.manual_seed(seed)
            is_compiled = self.synthesis is not self.generator.synthesis
            missing = self.batch - len(part) if is_compiled else 0  # a compiled network compiles anew for each size
            filled = torch.cat([part, part[-1:].expand(missing, -1, -1)]) if missing else part
            images = self.synthesis(filled, self.noise_mode, self.dtype)[: len(part)]
            advice = "use smaller numbers (--trunc, --psi, --w) or an earlier snapshot"
            yield to_uint8(require_finite(images, advice=advice)).cpu()

    def images(self, ws: Tensor, noise_seeds: Sequence[int]) -> Tensor:
        """All images of styles at once, uint8 [count, channels, height, width]."""
        return torch.cat(list(self.batches(ws, noise_seeds)))

    def seed_batches(self, seeds: Sequence[int], request: Request) -> Iterator[Tensor]:
        """Yield the images of seeds as `batches` does; the styles, too, are computed batch by batch."""
        for start in range(0, len(seeds), self.batch):
            part = seeds[start : start + self.batch]
            yield from self.batches(styles(self.generator, part, request), part)


def write_images(
    batches: Iterable[Tensor], names: Sequence[str], outdir: Path, extension: str, columns: int | None = None
) -> None:
    """Write images, uint8 [batch, channels, height, width], as NAME.EXT and all side by side as grid.EXT; None = no grid."""
    images, remaining = [], iter(names)
    threads = min(available_cpus(), MAX_THREADS)
    written: deque[Future[None]] = deque()
    with tqdm(total=len(names), unit=" images", disable=None) as bar, ThreadPoolExecutor(threads) as pool:
        for batch in batches:
            for pixels in batch.permute(0, 2, 3, 1).numpy():
                if len(written) >= threads * IMAGES_AHEAD:
                    written.popleft().result()
                written.append(pool.submit(write_image, outdir / f"{next(remaining)}.{extension}", pixels))
            if columns:
                images.append(batch)
            bar.update(len(batch))
        for image in written:
            image.result()
    print(f"{len(names)} images are in {outdir}")
    if columns:
        path = outdir / f"grid.{extension}"
        with naming(path):
            save_grid(path, torch.cat(images).numpy(), columns)
        print(f"Grid: {path}")
