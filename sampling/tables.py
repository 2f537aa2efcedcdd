"""Tables of styles, [rows, columns, num_ws, w_dim], and their images: style mixing, truncation, classes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from dnnlib.images.writer import save_grid, write_image
from sampling.renderer import Renderer, Request, device_of
from training.networks.generator import Generator
from training.networks.mapping import truncate


def mix(row_ws: Tensor, col_ws: Tensor, col_styles: Sequence[int]) -> Tensor:
    """Styles [rows, num_ws, w_dim] in which `col_styles` are replaced by those of each column, [columns, num_ws, w_dim]."""
    mixed = row_ws.unsqueeze(1).repeat(1, len(col_ws), 1, 1)
    mixed[:, :, list(col_styles)] = col_ws[:, list(col_styles)]
    return mixed


def check_col_styles(col_styles: Sequence[int] | None, num_ws: int) -> Sequence[int]:
    """The styles that come from the columns; None = the first half. Raises ValueError for one out of range."""
    if col_styles is None:
        return range(num_ws // 2)
    if wrong := [style for style in col_styles if style >= num_ws]:
        raise ValueError(f"--col-styles: there is no style {wrong[0]}; this network has {num_ws}: 0-{num_ws - 1}")
    return col_styles


def truncation_sweep(generator: Generator, ws: Tensor, psis: Sequence[float], cutoff: int | None) -> Tensor:
    """Styles [rows, num_ws, w_dim] truncated by each psi, [rows, psis, num_ws, w_dim]."""
    w_avg = generator.mapping_network.w_avg
    return torch.stack([truncate(ws, w_avg, psi, cutoff) for psi in psis], dim=1)


def class_grid(renderer: Renderer, seeds: Sequence[int], classes: Sequence[int], request: Request) -> Tensor:
    """The styles of each seed with each class, [seeds, classes, num_ws, w_dim]."""
    choices = torch.eye(renderer.generator.c_dim, device=device_of(renderer.generator))
    columns = [replace(request, labels=choices[[index]]) for index in classes]
    return torch.stack([renderer.styles(seeds, column) for column in columns], dim=1)


def check_table(extension: str, generator: Generator, rows: int, columns: int) -> None:
    """Raise ValueError if a format, png, jpg or webp, cannot hold a table of so many images."""
    limit = {"webp": 16383, "jpg": 65535}.get(extension)
    width, height = columns * generator.img_width, rows * generator.img_height
    if limit is not None and max(width, height) > limit:
        raise ValueError(
            f"--format={extension} is limited to {limit} px per side, but the table is {width}x{height} px; use png"
        )


def draw(renderer: Renderer, ws: Tensor, seeds: Sequence[int]) -> Tensor:
    """Images of a table of styles, uint8 [rows, columns, channels, height, width]; `seeds` are those of the rows."""
    noise_seeds = [seed for seed in seeds for _ in range(ws.shape[1])]
    batches = renderer.batches(ws.flatten(0, 1), noise_seeds)
    total = -(-len(noise_seeds) // renderer.batch)
    return torch.cat(list(tqdm(batches, total=total, unit=" batches", disable=None))).unflatten(0, ws.shape[:2])


def save_table(path: Path, images: Tensor) -> None:
    """Write a table of images, uint8 [rows, columns, channels, height, width], as one image."""
    save_grid(path, images.flatten(0, 1).numpy(), columns=images.shape[1])
    print(f"{images.shape[0]} rows of {images.shape[1]} images: {path}")


def write_mixing_table(
    renderer: Renderer,
    rows: Sequence[int],
    cols: Sequence[int],
    col_styles: Sequence[int],
    request: Request,
    path: Path,
) -> None:
    """Write the table with the seeds' own images at its left and top, and every image alone as ROW-COLUMN.EXT."""
    seeds = [*rows, *cols]
    ws = renderer.styles(seeds, request)
    originals = draw(renderer, ws.unsqueeze(1), seeds).squeeze(1)
    mixed = draw(renderer, mix(ws[: len(rows)], ws[len(rows) :], col_styles), rows)
    named = {f"{seed}-{seed}": image for seed, image in zip(seeds, originals, strict=True)}
    named |= {f"{row}-{col}": mixed[i, j] for i, row in enumerate(rows) for j, col in enumerate(cols)}
    for name, image in named.items():
        write_image(path.with_name(f"{name}{path.suffix}"), image.permute(1, 2, 0).numpy())
    left, top = originals[: len(rows)].unsqueeze(1), originals[len(rows) :]
    top = torch.cat([torch.zeros_like(top[:1]), top]).unsqueeze(0)  # a black corner
    save_table(path, torch.cat([top, torch.cat([left, mixed], dim=1)]))
