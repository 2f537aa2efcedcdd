"""Tables of styles, [rows, columns, num_ws, w_dim], and their images: truncation, classes."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from sampling.renderer import Renderer
from sampling.styles import Request, styles_in_batches
from training.networks.generator import Generator
from training.networks.mapping import truncate
from training.run.preview import save_grid


def truncation_sweep(generator: Generator, ws: Tensor, psis: Sequence[float], cutoff: int | None) -> Tensor:
    """Styles [rows, num_ws, w_dim] truncated by each psi."""
    w_avg = generator.mapping_network.w_avg
    return torch.stack([truncate(ws, w_avg, psi, cutoff) for psi in psis], dim=1)


def class_grid(
    generator: Generator, seeds: Sequence[int], classes: Sequence[int], request: Request, batch: int
) -> Tensor:
    """The styles of seeds, one per row, with each of some classes, one per column; `request` says the rest."""
    columns = [Request(index, request.psi, request.cutoff) for index in classes]
    return torch.stack([styles_in_batches(generator, seeds, column, batch) for column in columns], dim=1)


def table_path(outdir: Path, name: str, generator: Generator, rows: int, columns: int) -> Path:
    """The file of a table; raises ValueError where its format cannot hold so many images."""
    path = outdir / name
    limit = {".webp": 16383, ".jpg": 65535}.get(path.suffix)
    width, height = columns * generator.img_width, rows * generator.img_height
    if limit is not None and max(width, height) > limit:
        raise ValueError(f"--format={path.suffix[1:]} holds at most {limit} px a side, not {width}x{height}; take png")
    return path


def draw(renderer: Renderer, ws: Tensor, seeds: Sequence[int]) -> Tensor:
    """Images of a table of styles, uint8 [rows, columns, channels, height, width]; `seeds` are those of the rows."""
    noise_seeds = [seed for seed in seeds for _ in range(ws.shape[1])]
    made = []
    with tqdm(total=len(noise_seeds), unit=" images", disable=None) as bar:
        for images in renderer.batches(ws.flatten(0, 1), noise_seeds):
            made.append(images)
            bar.update(len(images))
    return torch.cat(made).unflatten(0, ws.shape[:2])


def save_table(path: Path, images: Tensor) -> None:
    """Write a table of images, uint8 [rows, columns, channels, height, width], as one image."""
    save_grid(path, images.flatten(0, 1), columns=images.shape[1])
    print(f"{images.shape[0]} rows of {images.shape[1]} images: {path}")
