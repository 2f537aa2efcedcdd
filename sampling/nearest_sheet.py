"""Shows the nearest real images of generated ones, and says what their distances mean."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dnnlib.images.writer import write_image
from sampling.captions import Cell, sheet
from sampling.real_neighbours import (
    Description,
    RealNeighbours,
    discriminator_description,
    find_real_neighbours,
    pixel_description,
    read,
)
from sampling.styles import device_of
from training.checkpoint.snapshot import load_discriminator
from training.data.dataset import ImageDataset
from training.networks.generator import Generator

COPY_RATIO = 0.5  # below it a generated image is suspiciously near to a real one


def choose_description(network: str, generator: Generator, by: str) -> Description:
    """What is compared: "pixels", or "features" of the snapshot's own discriminator."""
    if by == "pixels":
        return pixel_description(generator)
    return discriminator_description(load_discriminator(network, device_of(generator)), device_of(generator))


def write_neighbours(
    images: Sequence[Tensor],
    names: Sequence[str],
    dataset: ImageDataset,
    count: int,
    description: Description,
    outdir: Path,
) -> None:
    """Write nearest.png and print the distances of generated images, batches of uint8 [n, channels, height, width]."""
    generated = torch.cat(list(images))
    with tqdm(total=2 * len(dataset), unit=" images", disable=None) as bar:
        result = find_real_neighbours(generated, dataset, count, description, bar.update)
    path = outdir / "nearest.png"
    write_image(path, neighbour_sheet(generated, names, dataset, result))
    print(summary(names, result, description))
    print(f"Side by side: {path}")


def neighbour_sheet(
    generated: Tensor, names: Sequence[str], dataset: ImageDataset, result: RealNeighbours
) -> np.ndarray:
    """A row for each generated image: itself, then its nearest real ones with their distances; uint8 [h, w, 3]."""
    rows: list[list[Cell]] = []
    for image, name, indices, distances in zip(generated, names, result.indices, result.distances, strict=True):
        images = [image, *read(dataset, indices.tolist())]
        captions = [name, *(f"{distance:.3g}" for distance in distances.tolist())]
        cells = zip(images, captions, strict=True)
        rows.append([(pixels.permute(1, 2, 0).numpy(), caption) for pixels, caption in cells])
    return sheet(rows)


def summary(names: Sequence[str], result: RealNeighbours, description: Description) -> str:
    """A table for people, a line for each generated image, and how to read it."""
    lines = [
        f"Distances: {description.what}.",
        "generated    to the nearest real    from that to its own nearest    ratio",
    ]
    for name, distance, own, ratio in zip(
        names, result.distances[:, 0].tolist(), result.own[:, 0].tolist(), result.ratios.tolist(), strict=True
    ):
        lines.append(f"{name:<12} {distance:>19.4g}    {own:>27.4g}    {ratio:>5.2f}")
    copies = int((result.ratios < COPY_RATIO).sum())
    lines.append(
        f"median       {median(result.distances[:, 0].tolist()):>19.4g}    {median(result.own[:, 0].tolist()):>27.4g}    "
        f"{median(result.ratios.tolist()):>5.2f}"
    )
    lines.append(
        f"{copies} of {len(names)} are nearer to a real image than {COPY_RATIO:g} of the distance of that one to its own "
        f"nearest: {'look at those, they may be copies' if copies else 'no sign of memorising'}."
    )
    return "\n".join(lines)
