"""What each direction does to the images of seeds: a strip a seed, from one end to the other."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from dnnlib.images.writer import write_image
from sampling.captions import sheet
from sampling.directions import Directions, find_directions
from sampling.random_w import random_w
from sampling.renderer import Renderer
from sampling.styles import Request, device_of, styles_in_batches
from training.networks.generator import Generator

_SAMPLES = 5000  # random w that show how far w spread


def choose_directions(generator: Generator, file: str | None, layers: Sequence[int], count: int) -> Directions:
    """Those of a file, or those found in the weights. Raises ValueError where they do not suit the generator."""
    if file is None:
        if count > generator.w_dim:
            raise ValueError(f"--count={count}: W has {generator.w_dim} dimensions, and so many directions at most")
        return find_directions(generator.synthesis, layers, count, random_w(generator, _SAMPLES, seed=0))
    directions = Directions.load(file, device_of(generator))
    if directions.vectors.shape[1] != generator.w_dim or max(directions.layers) >= generator.num_ws:
        raise ValueError(
            f"--directions={file}: directions of {directions.vectors.shape[1]} numbers for styles up to "
            f"{max(directions.layers)}, but this network has styles 0-{generator.num_ws - 1} of {generator.w_dim} numbers"
        )
    return directions


def write_strips(
    renderer: Renderer,
    directions: Directions,
    seeds: Sequence[int],
    request: Request,
    amounts: Sequence[float],
    outdir: Path,
) -> None:
    """Write directions-NN.png for each direction, and directions.npz; print what each is worth."""
    ws = styles_in_batches(renderer.generator, seeds, request, renderer.batch)
    for index in range(len(directions.vectors)):
        columns = moved_images(renderer, directions, index, ws, seeds, amounts)
        path = outdir / f"directions-{index:02d}.png"
        write_image(path, strips(columns, amounts))
        effect, spread = float(directions.eigenvalues[index]), float(directions.spreads[index])
        print(f"{path}: eigenvalue {effect:.3g}, standard deviation of w along it {spread:.3g}")
    directions.save(outdir / "directions.npz")
    print(f"To use them again: --directions={outdir / 'directions.npz'}")


def moved_images(
    renderer: Renderer, directions: Directions, index: int, ws: Tensor, seeds: Sequence[int], amounts: Sequence[float]
) -> list[Tensor]:
    """The images of styles moved by each amount along a direction, uint8 [seeds, channels, height, width] each.

    They are made in the batches in which those of the seeds are made; so the unmoved ones are the seeds' images exactly.
    """
    return [renderer.images(directions.move(ws, index, amount), seeds) for amount in amounts]


def strips(columns: Sequence[Tensor], amounts: Sequence[float]) -> np.ndarray:
    """Strips as a sheet: a row for each seed, a column for each amount, which the captions name; uint8 [h, w, 3]."""
    images = [column.permute(0, 2, 3, 1).numpy() for column in columns]
    titles = [f"{amount:+.3g}" if amount else "0" for amount in amounts]
    return sheet(
        [
            [(column[row], title if row == 0 else "") for column, title in zip(images, titles, strict=True)]
            for row in range(len(images[0]))
        ]
    )
