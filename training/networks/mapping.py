"""The mapping network: latent (and label) to style vector, truncation towards the running mean, and projection of labels."""

import itertools
import math

import torch
from torch import Tensor, nn

from torch_utils.finite import is_all_finite
from training.networks.layers import EqualizedLinear


def normalize_second_moment(x: Tensor) -> Tensor:
    """Each row of [batch, channels] divided by its root mean square."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class MappingNetwork(nn.Module):
    """Linear layers from z, concatenated with the embedded label, to w; keeps the running mean of w.

    In training mode each call adds its w to a sum, and `update_w_avg` moves the running mean once per phase, so that the
    result does not depend on the size of the micro-batches.
    """

    w_avg: Tensor
    w_sum: Tensor

    def __init__(
        self,
        z_dim: int,  # latent width; 0 = labels only
        c_dim: int,  # label width; 0 = unconditional
        w_dim: int,  # style width
        num_layers: int,
        lr_mult: float = 0.01,
        w_avg_beta: float | None = 0.995,  # decay of the running mean; None = keep none
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.w_avg_beta = w_avg_beta
        self.w_count = 0  # w in the sum
        self.embed = EqualizedLinear(c_dim, w_dim) if c_dim > 0 else None
        widths = [z_dim + (w_dim if c_dim > 0 else 0)] + [w_dim] * num_layers
        self.layers = nn.ModuleList(
            EqualizedLinear(a, b, activation="lrelu", lr_mult=lr_mult) for a, b in itertools.pairwise(widths)
        )
        if w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))
            self.register_buffer("w_sum", torch.zeros(w_dim), persistent=False)

    def forward(self, z: Tensor | None, c: Tensor | None = None, track_mean: bool = True) -> Tensor:
        """The styles w, [batch, w_dim], of latents, [batch, z_dim], and labels, [batch, c_dim]; None where that width is 0.

        `track_mean` includes them in the running mean (in training mode).
        """
        inputs = [] if z is None or self.z_dim == 0 else [normalize_second_moment(z)]
        if self.embed is not None:
            if c is None:
                raise ValueError(f"this network is conditional: labels of shape [batch, {self.c_dim}] are needed")
            inputs.append(normalize_second_moment(self.embed(c)))
        w = torch.cat(inputs, dim=1)
        for layer in self.layers:
            w = layer(w)
        if self.training and track_mean and self.w_avg_beta is not None:
            self.w_sum += w.detach().sum(dim=0)
            self.w_count += len(w)
        return w

    def update_w_avg(self) -> None:
        """Move the running mean towards the mean of all w since the last call, unless that is not finite."""
        if self.w_avg_beta is None or self.w_count == 0:
            return
        moved = (self.w_sum / self.w_count).lerp(self.w_avg, self.w_avg_beta)
        self.w_avg.copy_(torch.where(is_all_finite(moved), moved, self.w_avg))
        self.w_sum.zero_()
        self.w_count = 0


def label_logits(network: MappingNetwork, hidden: Tensor, c: Tensor | None, class_logits: bool = False) -> Tensor:
    """Logits [batch, 1] of features [batch, w_dim] for labels [batch, c_dim], by projection (arXiv 1802.05637).

    With `class_logits` those of each of the c_dim classes follow: [batch, 1 + c_dim].
    """
    projection = network(None, c)
    logits = (hidden * projection).sum(dim=1, keepdim=True) / math.sqrt(network.w_dim)
    if not class_logits:
        return logits
    each_class = network(None, torch.eye(network.c_dim, dtype=hidden.dtype, device=hidden.device))
    return torch.cat([logits, hidden @ each_class.mT / math.sqrt(network.w_dim)], dim=1)


def truncate(ws: Tensor, w_avg: Tensor, psi: float, cutoff: int | None) -> Tensor:
    """Styles [batch, num_ws, w_dim] pulled towards w_avg: `w_avg + psi * (w - w_avg)`, all or only the first `cutoff`."""
    if psi == 1:
        return ws
    truncated = w_avg.lerp(ws, psi)
    if cutoff is None:
        return truncated
    return torch.cat([truncated[:, :cutoff], ws[:, cutoff:]], dim=1)
