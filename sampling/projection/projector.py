"""Projects images with a snapshot: where the search begins, how long it goes on, what is kept of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sampling.embeddings import Embedding
from sampling.projection.descent import Likeness, Projection, closest_samples, descend, principal_space
from sampling.random_w import random_w
from training.networks.generator import Generator
from training.run.preview import to_uint8

NOISE_MODE = "const"  # random noise would be another target at each step
PEAK_RATE = 0.1  # of Adam, in spreads of w
_SAMPLES = 5000  # random w that show how W is spread
_FRAMES = 60  # of an animation


@dataclass(frozen=True)
class Search:
    """How thoroughly to search."""

    starts: int = 3  # descents at once: from the best candidates, and of several the last from the mean of w
    candidates: int = 1000  # random w that are looked at for starts
    num_steps: int = 300  # of a descent
    is_plus: bool = False  # then go on in W+, as many steps again
    class_index: int | None = None  # whose w to begin with; None = all classes
    seed: int = 0  # of the random w


@dataclass(frozen=True)
class Found:
    """The projection of one image."""

    ws: Tensor  # [num_ws, w_dim]
    image: Tensor  # uint8 [channels, height, width]
    loss: float
    start: int  # which one led here
    path: Tensor  # styles on the way, [frames, num_ws, w_dim]


class Projector:
    """A generator, what images are compared by, and a search."""

    def __init__(self, generator: Generator, embed: Embedding, search: Search) -> None:
        self.generator, self.embed, self.search = generator, embed, search
        self.samples = random_w(generator, max(_SAMPLES, search.candidates), search.seed, search.class_index)
        self.space = principal_space(self.samples)

    def likeness(self, target: Tensor) -> Likeness:
        """The loss for an image, uint8 [channels, height, width]."""
        device = self.samples.device
        return Likeness((target.to(device).float() / 127.5 - 1).unsqueeze(0), self.embed)

    def starts(self, targets: Sequence[Tensor]) -> list[Tensor]:
        """Where to begin for each target, [starts, 1, w_dim]."""
        search = self.search
        closest = closest_samples(
            self.generator.synthesis,
            self.samples[: search.candidates],
            [self.likeness(target) for target in targets],
            search.starts,
            NOISE_MODE,
        )
        if search.starts > 1:
            closest = [torch.cat([ws[:-1], self.space.mean.unsqueeze(0)]) for ws in closest]
        return [ws.unsqueeze(1) for ws in closest]

    def project(self, target: Tensor, starts: Tensor, watch: Callable[[], object] = lambda: None) -> Found:
        """The best that descents lead to, in W and then, if asked for, in W+.

        Args:
            target: uint8 [channels, height, width].
            starts: [starts, 1, w_dim].
            watch: Called after each of `total_steps`.
        """
        likeness, on_the_way = self.likeness(target), []

        def on_step(ws: Tensor) -> None:
            watch()
            on_the_way.append(ws)

        result = self._descend(starts, likeness, on_step)
        if self.search.is_plus:
            result = self._descend(result.ws, likeness, on_step)
        best = result.best
        every = max(len(on_the_way) // _FRAMES, 1)
        path = torch.stack([ws[best] for ws in on_the_way[::every]] + [result.ws[best]])
        image = self.generator.synthesis(result.ws[[best]], noise_mode=NOISE_MODE)
        return Found(result.ws[best], to_uint8(image)[0].cpu(), float(result.losses[best]), best, path)

    @property
    def total_steps(self) -> int:
        """Steps for one target."""
        return self.search.num_steps * (2 if self.search.is_plus else 1)

    def _descend(self, ws: Tensor, likeness: Likeness, on_step: Callable[[Tensor], None]) -> Projection:
        return descend(
            self.generator.synthesis, self.space, ws, likeness, self.search.num_steps, PEAK_RATE, NOISE_MODE, on_step
        )
