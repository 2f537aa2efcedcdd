"""Style mixing: a table of images that have some styles of a row's seed and some of a column's."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from dnnlib.images.writer import write_image
from sampling.renderer import Renderer
from sampling.styles import Request, styles_in_batches
from sampling.tables import draw, save_table


def mix(row_ws: Tensor, col_ws: Tensor, col_styles: Sequence[int]) -> Tensor:
    """Styles of the rows, [rows, num_ws, w_dim], in which each column puts some of its own, [columns, num_ws, w_dim]."""
    mixed = row_ws.unsqueeze(1).repeat(1, len(col_ws), 1, 1)
    mixed[:, :, list(col_styles)] = col_ws[:, list(col_styles)]
    return mixed


def check_col_styles(col_styles: Sequence[int] | None, num_ws: int) -> Sequence[int]:
    """The styles that come from the columns; None = the first half. Raises ValueError for one that does not exist."""
    if col_styles is None:
        return range(num_ws // 2)
    if wrong := [style for style in col_styles if style >= num_ws]:
        raise ValueError(f"--col-styles: there is no style {wrong[0]}; this network has {num_ws}: 0-{num_ws - 1}")
    return col_styles


def write_mixing_table(
    renderer: Renderer,
    rows: Sequence[int],
    cols: Sequence[int],
    col_styles: Sequence[int],
    request: Request,
    path: Path,
) -> None:
    """Write the table of two lists of seeds, and beside it its images, ROW-COLUMN.EXT; SEED-SEED.EXT is a seed's own."""
    seeds = [*rows, *cols]
    ws = styles_in_batches(renderer.generator, seeds, request, renderer.batch)
    originals = draw(renderer, ws.unsqueeze(1), seeds).squeeze(1)
    left, top = originals[: len(rows)], originals[len(rows) :]
    mixed = draw(renderer, mix(ws[: len(rows)], ws[len(rows) :], col_styles), rows)
    named = {f"{seed}-{seed}": image for seed, image in zip(seeds, originals, strict=True)}
    named |= {f"{row}-{col}": mixed[i, j] for i, row in enumerate(rows) for j, col in enumerate(cols)}
    for name, image in named.items():
        write_image(path.with_name(f"{name}{path.suffix}"), image.permute(1, 2, 0).numpy())
    save_table(path, with_margins(mixed, left, top))


def with_margins(images: Tensor, left: Tensor, top: Tensor) -> Tensor:
    """A table of images with one more image at the left of each row and on top of each column; the corner is black."""
    top = torch.cat([torch.zeros_like(top[:1]), top])
    return torch.cat([top.unsqueeze(0), torch.cat([left.unsqueeze(1), images], dim=1)])
