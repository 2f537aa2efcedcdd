"""Projection: the styles whose image comes closest to a given one, found by descent from several starts at once."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sampling.embeddings import Embedding, squared_distances
from training.networks.generator import SynthesisNetwork

_WARM_UP, _COOL_DOWN = 0.05, 0.5  # shares of the steps in which the learning rate rises and falls
_FLOOR = 0.05  # of the mean spread: where random w hardly vary, the search still may
_AT_ONCE_PX = 64 * 32 * 32  # pixels of the images that are compared at once


class Likeness:
    """How far images are from a target: what a projection minimises.

    An image file is clipped. So where the target is black or white, a generated value beyond that is no difference.
    """

    def __init__(
        self,
        target: Tensor,  # [1, channels, height, width], -1..1
        embed: Embedding,  # how different images look
        pixel_weight: float = 1.0,  # of the mean squared difference of pixels, beside the distance of the embedding
    ) -> None:
        self.target, self.embed, self.pixel_weight = target, embed, pixel_weight
        self._lowest = torch.where(target <= -1, -1.0, -torch.inf)
        self._highest = torch.where(target >= 1, 1.0, torch.inf)
        with torch.no_grad():
            self._embedded = embed(target)

    def __call__(self, images: Tensor) -> Tensor:
        """The loss of each of some images, [n]."""
        images = images.maximum(self._lowest).minimum(self._highest)
        return self.of(images, self.embed(images))

    def of(self, images: Tensor, embedded: Sequence[Tensor]) -> Tensor:
        """The same of clipped images whose embedding is known."""
        pixels = (images - self.target).square().mean(dim=(1, 2, 3))
        return self.pixel_weight * pixels + squared_distances(embedded, self._embedded)


@dataclass(frozen=True)
class Space:
    """W in coordinates in which random w have mean 0 and much the same spread along all axes.

    Steps of one size suit them all, which shortens a descent.
    """

    mean: Tensor  # [w_dim]
    axes: Tensor  # [w_dim, w_dim], orthogonal rows, each as long as the spread along it

    def to_w(self, coordinates: Tensor) -> Tensor:
        """Coordinates [..., w_dim] to w."""
        return self.mean + coordinates @ self.axes

    def from_w(self, w: Tensor) -> Tensor:
        """w [..., w_dim] to coordinates."""
        return (w - self.mean) @ (self.axes / self.axes.square().sum(dim=1, keepdim=True)).T


def principal_space(samples: Tensor) -> Space:
    """The space of the principal axes of random w, [samples, w_dim]."""
    mean = samples.double().mean(dim=0)
    centred = samples.double() - mean
    variances, vectors = torch.linalg.eigh(centred.T @ centred / len(samples))
    spreads = variances.clamp(min=0).sqrt()
    spreads = spreads.clamp(min=max(_FLOOR * float(spreads.square().mean().sqrt()), 1e-6))
    return Space(mean.float(), (vectors * spreads).T.float())


@torch.no_grad()
def closest_samples(
    synthesis: SynthesisNetwork, samples: Tensor, likenesses: Sequence[Likeness], count: int, noise_mode: str
) -> list[Tensor]:
    """For each target the random w whose images are most like it, [count, w_dim], the best first.

    Args:
        synthesis: In eval mode.
        samples: Random w, [samples, w_dim]; the image of each is made once for all targets.
        likenesses: One a target, all by the same embedding.
        count: How many for each.
        noise_mode: const or none.
    """
    height, width = synthesis.sizes[-1]
    losses = []
    for part in samples.split(max(_AT_ONCE_PX // (height * width), 1)):
        images = synthesis(part.unsqueeze(1).expand(-1, synthesis.num_ws, -1), noise_mode=noise_mode).clamp(-1, 1)
        embedded = likenesses[0].embed(images)
        losses.append(torch.stack([likeness.of(images, embedded) for likeness in likenesses]))
    order = torch.cat(losses, dim=1).argsort(dim=1)[:, :count]
    return [samples[chosen] for chosen in order]


def learning_rate(step: int, num_steps: int, peak: float) -> float:
    """The rate of a step: a linear rise, the peak, then half a cosine down to nothing."""
    share = (step + 1) / num_steps
    rise = min(share / _WARM_UP, 1.0)
    fall = 0.5 - 0.5 * math.cos(math.pi * min((1 - share) / _COOL_DOWN, 1.0))
    return peak * rise * fall


@dataclass(frozen=True)
class Projection:
    """What a descent found from each start."""

    ws: Tensor  # [starts, num_ws, w_dim]
    losses: Tensor  # [starts]

    @property
    def best(self) -> int:
        """The start whose result is most like the target."""
        return int(self.losses.argmin())


def descend(
    synthesis: SynthesisNetwork,
    space: Space,
    ws: Tensor,
    likeness: Likeness,
    num_steps: int,
    peak_rate: float,
    noise_mode: str = "const",
    on_step: Callable[[Tensor], None] = lambda ws: None,
) -> Projection:
    """Move styles towards a target's likeness by Adam (Kingma & Ba, 2014); all starts are one batch.

    Args:
        synthesis: In eval mode, without gradients of its own.
        space: In whose coordinates steps are taken.
        ws: Where to begin, [starts, 1, w_dim] to search W or [starts, num_ws, w_dim] to search W+.
        likeness: The loss.
        num_steps: Of Adam.
        peak_rate: Highest learning rate, in spreads of w.
        noise_mode: const or none.
        on_step: Gets the styles after each step, [starts, num_ws, w_dim].
    """

    def styles() -> Tensor:
        return space.to_w(coordinates).expand(-1, synthesis.num_ws, -1)

    coordinates = space.from_w(ws).clone().requires_grad_()
    optimizer = torch.optim.Adam([coordinates], betas=(0.9, 0.99))
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = learning_rate(step, num_steps, peak_rate)
        optimizer.zero_grad()
        likeness(synthesis(styles(), noise_mode=noise_mode)).sum().backward()
        optimizer.step()
        on_step(styles().detach())
    with torch.no_grad():
        ws = styles().clone()
        return Projection(ws, likeness(synthesis(ws, noise_mode=noise_mode)))


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio of two uint8 images, dB; infinite for equal ones."""
    error = (a.double() - b.double()).square().mean().item()
    return 10 * math.log10(255**2 / error) if error else math.inf
