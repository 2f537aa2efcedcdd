"""Projects image files and writes what is found: target and result side by side, the styles of all, the way there."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dnnlib.images.animation import enlarged, write_animation
from dnnlib.images.writer import write_image
from sampling.captions import enlargement, sheet
from sampling.embeddings import Embedding, discriminator_embedding, lpips_embedding
from sampling.projection.descent import psnr
from sampling.projection.projector import NOISE_MODE, Projector
from sampling.renderer import Renderer
from sampling.style_file import save_styles
from sampling.styles import device_of
from training.checkpoint.snapshot import load_discriminator
from training.networks.generator import Generator

_FPS = 20


def choose_embedding(network: str, generator: Generator, lpips: str | None) -> Embedding:
    """LPIPS where its weights are given, otherwise the snapshot's own discriminator. Raises ValueError."""
    if lpips is None:
        return discriminator_embedding(load_discriminator(network, device_of(generator)))
    return lpips_embedding(lpips, generator.img_height, generator.img_width, device_of(generator))


def project_files(
    projector: Projector, targets: Sequence[Tensor], names: Sequence[str], outdir: Path, is_animated: bool
) -> None:
    """Write projNN.png for each target, projected_w.npz, and projNN.webp where animations are wanted; print the PSNR.

    Args:
        projector: Does the work.
        targets: uint8 [channels, height, width].
        names: What to call them.
        outdir: An existing folder.
        is_animated: Whether the way to each target is shown too.
    """
    found = []
    with tqdm(total=len(targets) * projector.total_steps, unit=" steps", disable=None) as bar:
        for index, (target, start) in enumerate(zip(targets, projector.starts(targets), strict=True)):
            result = projector.project(target, start, bar.update)
            found.append(result.ws)
            decibels = psnr(result.image, target)
            path = outdir / f"proj{index:02d}.png"
            write_image(path, comparison(target, result.image, f"{decibels:.1f} dB"))
            if is_animated:
                frames = Renderer(projector.generator, NOISE_MODE).images(result.path, range(len(result.path)))
                save_way(path.with_suffix(".webp"), target, frames)
            line = f"{names[index]}: PSNR {decibels:.1f} dB, loss {result.loss:.5f} (start {result.start}), in {path}"
            bar.write(line)
    styles_path = outdir / "projected_w.npz"
    save_styles(styles_path, torch.stack(found))
    print(f"Styles of all, for --w: {styles_path}")


def comparison(target: Tensor, image: Tensor, note: str) -> np.ndarray:
    """Target and projection, uint8 [channels, height, width], side by side; uint8 [height, width, 3]."""
    left, right = (x.permute(1, 2, 0).numpy() for x in (target, image))
    return sheet([[(left, "target"), (right, note)]])


def save_way(path: Path, target: Tensor, frames: Tensor) -> None:
    """Write the way to a target as an animation, the target on the left: uint8 [frames, channels, height, width]."""
    factor = enlargement(*target.shape[1:])
    left = target.permute(1, 2, 0).numpy()
    pages = (np.concatenate([left, frame.permute(1, 2, 0).numpy()], axis=1) for frame in frames)
    write_animation(path, (enlarged(page, factor) for page in pages), _FPS)
