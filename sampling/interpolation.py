"""Interpolation between seeds in z or w, and the frames of an animation."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from dnnlib.images.writer import grid_pixels
from sampling.renderer import Renderer, Request, device_of, labels, latents, styles
from training.networks.generator import Generator

Moment = tuple[int, int, float]  # of a frame: the indices of two seeds, and its position between them, 0..1


def timeline(seeds: int, frames: int, is_loop: bool) -> list[Moment]:
    """The moments of all frames, `frames` per pair of seeds; a loop returns from the last seed to the first."""
    gaps = seeds if is_loop else seeds - 1
    moments = [(gap, (gap + 1) % seeds, frame / frames) for gap in range(gaps) for frame in range(frames)]
    return moments if is_loop else [*moments, (seeds - 1, seeds - 1, 0.0)]


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Spherical interpolation of vectors [batch, n] at t, [batch, 1]; t = 0 gives exactly a, and t = 1 exactly b."""
    cosine = torch.cosine_similarity(a.double(), b.double(), dim=1).clamp(-1, 1)
    angle = cosine.acos().unsqueeze(1)
    is_straight = angle.sin() < 1e-6  # equal directions, or opposite ones, which have no shortest arc
    sine = torch.where(is_straight, torch.ones_like(angle), angle.sin())
    weight_a = torch.where(is_straight, 1 - t, ((1 - t) * angle).sin() / sine)
    weight_b = torch.where(is_straight, t, (t * angle).sin() / sine)
    return weight_a.to(a.dtype) * a + weight_b.to(b.dtype) * b


class Way:
    """Interpolated styles: of spherically interpolated latents and linearly interpolated labels (z), or linear (w)."""

    def __init__(self, generator: Generator, seeds: Sequence[int], request: Request, space: str) -> None:
        self.generator, self.request, self.space = generator, request, space
        self.z = latents(seeds, generator.z_dim, device_of(generator))
        self.c = labels(generator, seeds, request.labels)
        self.ws = styles(generator, seeds, request)

    @torch.no_grad()
    def styles(self, moments: Sequence[Moment]) -> Tensor:
        """The styles at given moments, [moments, num_ws, w_dim]."""
        a, b, positions = map(list, zip(*moments, strict=True))
        t = torch.tensor(positions, dtype=torch.float64, device=self.z.device).unsqueeze(1)
        if self.space == "w":
            return self.ws[a].lerp(self.ws[b], t.to(self.ws.dtype).unsqueeze(2))
        z, c = slerp(self.z[a], self.z[b], t), self.c[a].lerp(self.c[b], t.to(self.c.dtype))
        ws = self.generator.mapping(z, c, self.request.psi, self.request.cutoff)
        at_seed = (t == 0).unsqueeze(2)
        return torch.where(at_seed, self.ws[a], ws)  # exactly the seeds' own


def split_seeds(seeds: Sequence[int], cells: int) -> list[list[int]]:
    """Consecutive seeds for each animation of a grid. Raises ValueError if they cannot be split evenly."""
    each, rest = divmod(len(seeds), cells)
    if rest or each < 2:
        least = max(each + (rest > 0), 2) * cells
        raise ValueError(
            f"--seeds has {len(seeds)} seeds, but each of {cells} animations needs two or more, and all the same number: "
            f"give {least}, such as --seeds=0-{least - 1}"
        )
    return [list(seeds[start : start + each]) for start in range(0, len(seeds), each)]


def frames(
    renderer: Renderer, ways: Sequence[Way], moments: Sequence[Moment], noise_seed: int, columns: int
) -> Iterator[np.ndarray]:
    """Yield frames with all ways side by side, uint8 [height, width, 1 or 3]; all frames have the same random noise."""
    at_once = max(renderer.batch // len(ways), 1)
    for start in range(0, len(moments), at_once):
        part = moments[start : start + at_once]
        ws = torch.stack([way.styles(part) for way in ways], dim=1).flatten(0, 1)
        for images in renderer.images(ws, [noise_seed] * len(ws)).split(len(ways)):
            yield grid_pixels(images.numpy(), columns)
