"""Modulated linear maps: pure functions of tokens, weights and styles (paper, section 3.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """Factors that bring every output row of a style-scaled weight back to unit length.

    One matrix product of squares gives the row lengths of all samples, so no weight per sample is stored.

    Args:
        weight: Shared weight, [out, in].
        style: One factor per input channel, [batch, in].

    Returns:
        [batch, out].
    """
    return (F.linear(style.square(), weight.square()) + 1e-8).rsqrt()


def bounded(style: Tensor, dtype: torch.dtype) -> Tensor:
    """Factors that demodulation undoes, each sample's largest being 1 where the products are float16, which overflows.

    Args:
        style: One factor per input channel, [batch, in].
        dtype: That of the products.

    Returns:
        [batch, in].
    """
    if dtype != torch.float16:
        return style
    return style / (style.detach().abs().amax(dim=1, keepdim=True) + 1e-8)  # the result does not depend on the divisor


def modulated_linear(x: Tensor, weight: Tensor, style: Tensor) -> Tensor:
    """Apply a linear layer whose weight is rescaled for every sample by a style, then row-normalised.

    The style scales the input and the row length scales the output, which equals scaling the weight itself.

    Args:
        x: Tokens, [batch, tokens, in]; the product is computed in their dtype.
        weight: Shared weight, [out, in].
        style: One factor per input channel, [batch, in].

    Returns:
        [batch, tokens, out] in the dtype of the style.
    """
    style = bounded(style, x.dtype)
    y = F.linear(x * style.unsqueeze(1).to(x.dtype), weight.to(x.dtype))
    return y.to(style.dtype) * demodulation(weight, style).unsqueeze(1)
