"""Writes generated images, one a file, by threads behind the generator."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from dnnlib.images.writer import ImageWriter
from dnnlib.parallel import available_cpus
from training.run.preview import save_grid

MAX_THREADS = 8  # that write images


def write_images(
    batches: Iterable[Tensor], names: Sequence[str], outdir: Path, extension: str, columns: int | None = None
) -> None:
    """Write images, uint8 [batch, channels, height, width], as files of these names; then side by side as grid.EXT.

    Args:
        batches: As many images as there are names, in their order.
        names: Of the files, without their extension.
        outdir: An existing folder.
        extension: png, jpg or webp.
        columns: Of the grid; None = no grid.
    """
    made, remaining = [], iter(names)
    threads = min(available_cpus(), MAX_THREADS)
    with tqdm(total=len(names), unit=" images", disable=None) as bar, ImageWriter(threads) as writer:
        for images in batches:
            for pixels in images.permute(0, 2, 3, 1).numpy():
                writer.add(outdir / f"{next(remaining)}.{extension}", pixels)
            if columns:
                made.append(images)
            bar.update(len(images))
    print(f"{len(names)} images are in {outdir}")
    if columns:
        path = outdir / f"grid.{extension}"
        save_grid(path, torch.cat(made), columns)
        print(f"Side by side: {path}")
