"""Style vectors to factors on channels: affine maps and demodulation, batched over layers (paper, section 3.2)."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from training.networks.layers import EqualizedLinear

EPS = 1e-8  # of a squared row length


def indices_by_key(keys: Iterable[Hashable]) -> list[list[int]]:
    """The positions of equal keys together, in the order in which the keys first occur."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        groups[key].append(index)
    return list(groups.values())


def affine_styles(affines: Sequence[EqualizedLinear], ws: Sequence[Tensor]) -> Tensor:
    """The affine map of each of n linear layers of one shape, of its style vectors [batch, w_dim], as [n, batch, out].

    One batched product computes all.
    """
    weight = torch.stack([affine.weight for affine in affines])
    bias = torch.stack([affine.bias for affine in affines])
    w = torch.stack(list(ws)) * affines[0].weight_gain
    return torch.baddbmm(bias.unsqueeze(2), weight, w.mT).mT.contiguous()  # saves a copy in the backward pass


def demodulation(style: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Factors, [n, batch, k * out], that normalise each output row of style-scaled weights to unit length.

    One product of squares gives the row lengths of all samples, so no weight per sample is stored. `style` has a factor per
    input channel, [n, batch, in]; `weights` are those of n layers, k per layer: n * k times [out, in].
    """
    if torch.compiler.is_compiling():  # the compiler decides what to store, and would copy transposed weights
        return (torch.bmm(_stacked(style, weights).square(), style.square().mT) + EPS).rsqrt().mT
    return _Demodulation.apply(style, *weights)


def bounded(style: Tensor, dtype: torch.dtype) -> Tensor:
    """Scale the factors of each sample, [..., in], to at most 1 if the products are float16, which overflows.

    Demodulation undoes it.
    """
    if dtype != torch.float16:
        return style
    return style / (style.detach().abs().amax(dim=-1, keepdim=True) + EPS)  # the result does not depend on the divisor


def modulated_weights(style: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Weights per sample, [n, batch, out, in], with rows of unit length; for layers with few output channels.

    n weights [out, in] are scaled by styles, one factor per input channel, [n, batch, in].
    """
    scaled = torch.stack(list(weights)).unsqueeze(1) * style.unsqueeze(2)
    return scaled * demodulation(style, weights).unsqueeze(3)


def _stacked(style: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Weights as [n, k * out, in]."""
    return torch.stack(list(weights)).view(style.shape[0], -1, style.shape[2])


class _Demodulation(Function):
    """Stores the weights themselves, not their squares."""

    @staticmethod
    def forward(ctx: Any, style: Tensor, *weights: Tensor) -> Tensor:
        gain = (torch.bmm(style.square(), _stacked(style, weights).square_().mT) + EPS).rsqrt()
        ctx.save_for_backward(style, gain, *weights)
        return gain

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        style, gain, *weights = ctx.saved_tensors
        weight = _stacked(style, weights)
        by_square = grad * (-gain).pow(3)  # twice the gradient by the squared row length
        d_style = torch.bmm(by_square, weight.square()) * style
        d_weight = torch.bmm(by_square.mT, style.square()) * weight
        return d_style, *d_weight.view(-1, *weights[0].shape).unbind()
