"""Modulated linear maps: pure functions of tokens, weights and styles (paper, section 3.2)."""

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


def modulated_linear(x: Tensor, weight: Tensor, style: Tensor) -> Tensor:
    """Apply a linear layer whose weight is rescaled for every sample by a style, then row-normalised.

    The style scales the input and the row length scales the output, which equals scaling the weight itself.

    Args:
        x: Tokens, [batch, tokens, in].
        weight: Shared weight, [out, in].
        style: One factor per input channel, [batch, in].

    Returns:
        [batch, tokens, out].
    """
    return F.linear(x * style.unsqueeze(1), weight) * demodulation(weight, style).unsqueeze(1)
