"""Finds the styles whose image comes closest to a given one, by gradient descent from several starts in one batch."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sampling.embeddings import Embedding, squared_distances
from training.evaluation.finite import require_finite
from training.networks.generator import Generator

PEAK_RATE = 0.1  # learning rate of Adam, in standard deviations of w
_WARM_UP, _COOL_DOWN = 0.05, 0.5  # fractions of the steps in which the learning rate rises and falls
_FLOOR = 0.05  # smallest spread along an axis, relative to the mean one
_BATCH_PX = 64 * 32 * 32  # pixels of the images that are compared at once


class Likeness:
    """The loss of a projection: mean squared difference of the pixels plus distance of the embeddings.

    Image files are clipped, so values beyond the range do not count as a difference to black or white.
    """

    def __init__(self, target: Tensor, embed: Embedding) -> None:  # target: [1, channels, height, width], -1..1
        self.target, self.embed = target, embed
        self._lowest = torch.where(target <= -1, -1.0, -torch.inf)
        self._highest = torch.where(target >= 1, 1.0, torch.inf)
        with torch.no_grad():
            self._embedded = embed(target)

    def __call__(self, images: Tensor) -> Tensor:
        images = images.maximum(self._lowest).minimum(self._highest)
        return self.of(images, self.embed(images))

    def of(self, images: Tensor, embedded: Sequence[Tensor]) -> Tensor:
        pixels = (images - self.target).square().mean(dim=(1, 2, 3))
        return pixels + squared_distances(embedded, self._embedded)


@dataclass(frozen=True)
class Space:
    """W in coordinates in which random w have mean 0 and about unit variance along all axes; it speeds up the descent."""

    mean: Tensor  # [w_dim]
    axes: Tensor  # [w_dim, w_dim], orthogonal rows, each as long as the spread along it

    def to_w(self, coordinates: Tensor) -> Tensor:
        return self.mean + coordinates @ self.axes

    def from_w(self, w: Tensor) -> Tensor:
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
def closest_samples(generator: Generator, samples: Tensor, likenesses: Sequence[Likeness], count: int) -> list[Tensor]:
    """For each target the random w whose images are most like it, [count, w_dim], best first.

    Random w are [samples, w_dim]. There is one likeness per target, all with the same embedding. Raises ValueError if a
    loss is not finite.
    """
    losses = []
    for part in samples.split(max(_BATCH_PX // (generator.img_height * generator.img_width), 1)):
        ws = part.unsqueeze(1).expand(-1, generator.num_ws, -1)
        images = generator.synthesis(ws, noise_mode="const").clamp(-1, 1)
        embedded = likenesses[0].embed(images)
        losses.append(torch.stack([likeness.of(images, embedded) for likeness in likenesses]))
    order = require_finite(torch.cat(losses, dim=1), "the network's images or their features").argsort(dim=1)[:, :count]
    return [samples[chosen] for chosen in order]


def learning_rate(step: int, num_steps: int) -> float:
    """The rate of a step: a linear rise to the peak, then half a cosine down to zero."""
    share = (step + 1) / num_steps
    rise = min(share / _WARM_UP, 1.0)
    fall = 0.5 - 0.5 * math.cos(math.pi * min((1 - share) / _COOL_DOWN, 1.0))
    return PEAK_RATE * rise * fall


def descend(
    generator: Generator,
    space: Space,
    ws: Tensor,
    likeness: Likeness,
    num_steps: int,
    on_step: Callable[[Tensor], None] = lambda ws: None,
) -> tuple[Tensor, Tensor]:
    """Minimise the loss by Adam (Kingma & Ba, 2014); return the styles, [starts, num_ws, w_dim], and their losses, [starts].

    Args:
        generator: In eval mode, its parameters without gradients.
        ws: Starts, [starts, 1, w_dim] to search W or [starts, num_ws, w_dim] to search W+.
        on_step: Called with the styles after each step.
    """

    def styles() -> Tensor:
        return space.to_w(coordinates).expand(-1, generator.num_ws, -1)

    coordinates = space.from_w(ws).clone().requires_grad_()
    optimizer = torch.optim.Adam([coordinates], betas=(0.9, 0.99))
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = learning_rate(step, num_steps)
        optimizer.zero_grad()
        likeness(generator.synthesis(styles(), noise_mode="const")).sum().backward()
        optimizer.step()
        on_step(styles().detach())
    with torch.no_grad():
        ws = styles().clone()
        return ws, likeness(generator.synthesis(ws, noise_mode="const"))


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio of two uint8 images, dB; infinite for equal ones."""
    error = (a.double() - b.double()).square().mean().item()
    return 10 * math.log10(255**2 / error) if error else math.inf
