"""Styles to pictures, a batch at a time."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from training.networks.generator import Generator
from training.preview import to_uint8
from training.sampling.styles import Request, styles


class Renderer:
    """Makes the pictures of styles; random noise follows from a seed a picture, whatever is beside it."""

    def __init__(self, generator: Generator, noise_mode: str = "const", batch: int = 32) -> None:
        self.generator, self.noise_mode = generator, noise_mode
        self.batch = 1 if noise_mode == "random" else batch

    @torch.no_grad()
    def batches(self, ws: Tensor, noise_seeds: Sequence[int]) -> Iterator[Tensor]:
        """Yield the pictures of styles [count, num_ws, w_dim] as uint8 [batch, channels, height, width] on the CPU."""
        for part, seed in zip(ws.split(self.batch), noise_seeds[:: self.batch], strict=True):
            torch.manual_seed(seed)
            yield to_uint8(self.generator.synthesis(part, noise_mode=self.noise_mode)).cpu()

    def pictures(self, ws: Tensor, noise_seeds: Sequence[int]) -> Tensor:
        """All pictures of styles at once, uint8 [count, channels, height, width]."""
        return torch.cat(list(self.batches(ws, noise_seeds)))

    def seed_batches(self, seeds: Sequence[int], request: Request) -> Iterator[Tensor]:
        """Yield the pictures of seeds as `batches` does; their styles too are made a batch at a time."""
        for start in range(0, len(seeds), self.batch):
            part = seeds[start : start + self.batch]
            yield from self.batches(styles(self.generator, part, request), part)
