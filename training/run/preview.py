"""Grids of real and generated images, with the same labels and latents throughout a run."""

from pathlib import Path

import numpy as np
import torch

from dnnlib.images.writer import save_grid
from torch_utils.images import to_uint8
from torch_utils.rng import derive_seed
from training.data.stream import ImageDataset
from training.networks.generator import Generator

MAX_COLUMNS, MAX_ROWS, MIN_ROWS = 12, 8, 2
MAX_PIXELS = 12 * 8 * 128 * 128  # of a grid; larger images get fewer rows
MAX_CLASS_COLUMNS = 16  # with at most this many classes, each column is a class


class Preview:
    """Chooses the images, labels and latents of the grids, and writes the grids."""

    def __init__(self, dataset: ImageDataset, z_dim: int, seed: int, device: torch.device) -> None:
        rng = np.random.default_rng(derive_seed(seed, 3))
        self.dataset, self.device = dataset, device
        classes = dataset.spec.label_dim
        self.columns = classes if 1 < classes <= MAX_CLASS_COLUMNS else MAX_COLUMNS
        pixels = self.columns * dataset.spec.height * dataset.spec.width
        self.rows = min(max(MAX_PIXELS // pixels, MIN_ROWS), MAX_ROWS)
        chosen = rng.permutation(len(dataset))
        if 1 < classes <= MAX_CLASS_COLUMNS:
            chosen = by_class(chosen, dataset.labels().argmax(), classes)
        self.chosen = chosen[: self.columns * self.rows]
        self.c = torch.as_tensor(np.stack([dataset.label(i) for i in self.chosen])).to(device)
        self.z = torch.as_tensor(rng.standard_normal((len(self.chosen), z_dim)), dtype=torch.float32).to(device)

    def save_reals(self, path: Path) -> None:
        save_grid(path, np.stack([self.dataset.load_or_substitute(i)[0] for i in self.chosen]), self.columns)

    @torch.no_grad()
    def save_fakes(self, path: Path, generator: Generator, batch: int) -> None:
        """Write the grid of generated images, with constant noise and the labels of the real ones."""
        parts = zip(self.z.split(batch), self.c.split(batch), strict=True)
        images = [to_uint8(generator(z, c, noise_mode="const")) for z, c in parts]
        save_grid(path, torch.cat(images).cpu().numpy(), self.columns)


def by_class(indices: np.ndarray, classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Indices in rows of one image per class; small classes repeat their images, empty ones take any."""
    queues = [indices[classes[indices] == k][:MAX_ROWS] for k in range(num_classes)]
    queues = [queue if len(queue) else indices[:MAX_ROWS] for queue in queues]
    rows = max(len(queue) for queue in queues)
    return np.asarray([queue[row % len(queue)] for row in range(rows) for queue in queues])
