"""What each direction does to the pictures of seeds: a strip a seed, from one end to the other."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from training.sampling.directions import Directions
from training.sampling.renderer import Renderer
from training.sampling.sheets import sheet


def moved_pictures(
    renderer: Renderer, directions: Directions, index: int, ws: Tensor, seeds: Sequence[int], amounts: Sequence[float]
) -> list[Tensor]:
    """The pictures of styles moved by each amount along a direction, uint8 [seeds, channels, height, width] each.

    They are made in the batches in which the seeds alone would be; so those not moved are the seeds' pictures exactly.
    """
    return [renderer.pictures(directions.move(ws, index, amount), seeds) for amount in amounts]


def strips(columns: Sequence[Tensor], amounts: Sequence[float]) -> np.ndarray:
    """Strips as a sheet: a row for each seed, a column for each amount, which the captions name; uint8 [h, w, 3]."""
    pictures = [column.permute(0, 2, 3, 1).numpy() for column in columns]
    return sheet(
        [
            [(column[row], f"{amount:+.3g}" if row == 0 else "") for column, amount in zip(pictures, amounts, strict=True)]
            for row in range(len(pictures[0]))
        ]
    )
