"""R1 and path length: pure functions of tensors (StyleGAN2, arXiv 1912.04958, sections 2 and 3.2)."""

import math

import torch
from torch import Tensor


def r1_penalty(images: Tensor, logits: Tensor) -> Tensor:
    """Squared length of the gradient of each logit by its image, differentiable.

    Args:
        images: What the logits were computed from, requiring gradients, [batch, channels, height, width].
        logits: [batch, 1].

    Returns:
        [batch].
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum(dim=[1, 2, 3])


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor) -> Tensor:
    """How far each image moves, in a random direction of colour space, when its styles move by one; differentiable.

    Args:
        images: Generated from ws, [batch, channels, height, width].
        ws: Styles requiring gradients, [batch, num_ws, w_dim].
        noise: Standard normal, shaped like the images.

    Returns:
        [batch].
    """
    height, width = images.shape[2:]
    (gradient,) = torch.autograd.grad((images * noise).sum() / math.sqrt(height * width), ws, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def path_length_penalty(lengths: Tensor, pl_mean: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """Squared distance of each path length from the running mean, and the running mean after these lengths.

    The gradient flows through the updated mean; the returned mean is detached.

    Args:
        lengths: [batch].
        pl_mean: Running mean, scalar.
        decay: Share of the new mean length.

    Returns:
        [batch] and a scalar.
    """
    mean = pl_mean.lerp(lengths.mean(), decay)
    return (lengths - mean).square(), mean.detach()


def difference_penalty(logits: Tensor, moved_logits: Tensor, eps: float) -> Tensor:
    """Squared length of the gradient of each logit, estimated without second derivatives: `(D(x + eps n) - D(x))^2 / eps^2`.

    Its mean over standard normal n is the squared length of the gradient, up to a term of the order of eps^2.

    Args:
        logits: Of the images x, [batch, 1].
        moved_logits: Of x + eps n, [batch, 1].
        eps: Standard deviation of the noise, of images in -1..1.

    Returns:
        [batch].
    """
    return ((moved_logits - logits) / eps).square().sum(dim=1)
