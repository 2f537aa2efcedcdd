"""Styles to images, a batch at a time."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sampling.styles import Request, device_of, styles
from training.compilation import forward_pass
from training.config import PerformanceConfig
from training.networks.generator import Generator
from training.precision import allow_tf32, resolve_precision
from training.run.preview import to_uint8


class Renderer:
    """Makes the images of styles; random noise follows from a seed an image, whatever is beside it."""

    def __init__(
        self,
        generator: Generator,
        noise_mode: str = "const",
        batch: int = 32,
        performance: PerformanceConfig | None = None,  # None = float32, not compiled
    ) -> None:
        performance, device = performance or PerformanceConfig(), device_of(generator)
        precision = resolve_precision(performance.precision, device)
        if precision.allow_tf32:
            allow_tf32(True)
        self.generator, self.noise_mode, self.dtype = generator, noise_mode, precision.dtype
        self.batch = 1 if noise_mode == "random" else batch
        self.synthesis = forward_pass(generator.synthesis, performance, device)

    @torch.no_grad()
    def batches(self, ws: Tensor, noise_seeds: Sequence[int]) -> Iterator[Tensor]:
        """Yield the images of styles [count, num_ws, w_dim] as uint8 [batch, channels, height, width] on the CPU."""
        for part, seed in zip(ws.split(self.batch), noise_seeds[:: self.batch], strict=True):
            torch.manual_seed(seed)
            yield to_uint8(self._images(part)).cpu()

    def _images(self, ws: Tensor) -> Tensor:
        """The images of a batch; a compiled network gets as many as always, because each size is compiled anew."""
        missing = 0 if self.synthesis is self.generator.synthesis else self.batch - len(ws)
        filled = torch.cat([ws, ws[-1:].expand(missing, -1, -1)]) if missing else ws
        return self.synthesis(filled, self.noise_mode, self.dtype)[: len(ws)]

    def images(self, ws: Tensor, noise_seeds: Sequence[int]) -> Tensor:
        """All images of styles at once, uint8 [count, channels, height, width]."""
        return torch.cat(list(self.batches(ws, noise_seeds)))

    def seed_batches(self, seeds: Sequence[int], request: Request) -> Iterator[Tensor]:
        """Yield the images of seeds as `batches` does; their styles too are made a batch at a time."""
        for start in range(0, len(seeds), self.batch):
            part = seeds[start : start + self.batch]
            yield from self.batches(styles(self.generator, part, request), part)
