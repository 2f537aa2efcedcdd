"""Styles in .npz files, as StyleGAN2-ADA's projector writes them: an array `w`."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dnnlib.files import atomic_write
from dnnlib.paths import user_path
from sampling.output import naming
from sampling.renderer import device_of
from training.networks.generator import Generator


def save_styles(path: Path, ws: Tensor, seeds: Sequence[int] = ()) -> None:
    """Write styles, [count, num_ws, w_dim], as float32, and their seeds."""
    with naming(path), atomic_write(path) as file:
        np.savez(file, w=ws.cpu().float().numpy(), seeds=np.asarray(seeds, dtype=np.int64))


def load_styles(path: str | Path, generator: Generator) -> tuple[Tensor, list[int]]:
    """The styles of a file, [count, num_ws, w_dim], and the seeds of their noise, by default 0, 1, ...

    A single vector per image is repeated for all layers. Runs no code. Raises ValueError for a file of anything else.
    """
    path = user_path(path)
    if not path.is_file():
        raise ValueError(f"--w={path}: there is no such file")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            w, seeds = arrays["w"], arrays["seeds"] if "seeds" in arrays else np.arange(0)
    except KeyError:
        raise ValueError(f"--w={path}: the file has no array w") from None
    except (ValueError, OSError, EOFError, TypeError, AttributeError, zipfile.BadZipFile):  # numpy's advice is unsafe
        raise ValueError(
            f"--w={path}: not an .npz file of numbers, or damaged; generate.py --save-w and project write such files"
        ) from None
    wanted = f"[count, {generator.num_ws}, {generator.w_dim}] or [count, {generator.w_dim}]"
    if w.dtype.kind != "f" or not (np.abs(w) <= np.finfo(np.float32).max).all():
        raise ValueError(f"--w={path}: w must be finite floating-point numbers, {wanted}; it is {w.dtype}")
    if w.ndim == 2 and w.shape[1] == generator.w_dim:
        w = np.repeat(w[:, None], generator.num_ws, axis=1)
    if w.ndim != 3 or w.shape[0] < 1 or w.shape[1:] != (generator.num_ws, generator.w_dim):
        raise ValueError(f"--w={path}: w is {list(w.shape)}, but this network needs {wanted}")
    has_seeds = seeds.shape == (len(w),) and seeds.dtype.kind == "i"
    ws = torch.as_tensor(w.astype(np.float32), device=device_of(generator))
    return ws, seeds.tolist() if has_seeds else list(range(len(w)))
