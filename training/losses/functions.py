"""R1 and path length: pure functions of tensors (StyleGAN2, arXiv 1912.04958, sections 2 and 3.2)."""

import math

import torch
from torch import Tensor


def r1_penalty(images: Tensor, logits: Tensor) -> Tensor:
    """Squared length of the gradient of each logit by its image, [batch], differentiable.

    The logits, [batch, 1], were computed from the images, [batch, channels, height, width], which require gradients.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum(dim=[1, 2, 3])


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor) -> Tensor:
    """How far each image moves, in a random direction of colour space, when its styles move by one, [batch]; differentiable.

    The images, [batch, channels, height, width], were generated from `ws`, [batch, num_ws, w_dim], which require gradients;
    the noise is standard normal and shaped like them.
    """
    height, width = images.shape[2:]
    (gradient,) = torch.autograd.grad((images * noise).sum() / math.sqrt(height * width), ws, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def path_length_penalty(lengths: Tensor, pl_mean: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """Squared distance of each path length, [batch], from the running mean, and the running mean after these lengths.

    `decay` is the share of the new mean length. The gradient flows through the updated mean; the returned mean is detached.
    """
    mean = pl_mean.lerp(lengths.mean(), decay)
    return (lengths - mean).square(), mean.detach()


def difference_penalty(logits: Tensor, moved_logits: Tensor, eps: float) -> Tensor:
    """Squared length of the gradient of each logit, [batch], without second derivatives: `(D(x + eps n) - D(x))^2 / eps^2`.

    Its mean over standard normal n is the squared length of the gradient, up to a term of the order of eps^2. The logits,
    [batch, 1], are those of images x, -1..1, and of x + eps n.
    """
    return ((moved_logits - logits) / eps).square().sum(dim=1)
