"""The encoder layer: modulated self-attention over tokens (paper, section 3.2)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_utils.ops.bias_act import bias_act
from training.config import GeneratorConfig
from training.networks.layers import EqualizedLinear, output_bound
from training.networks.modulation import affine_styles, bounded, demodulation, indices_by_key

NOISE_MODES = ("random", "const", "none")


def layer_noise(const: Tensor, batch: int, noise_mode: str) -> Tensor | None:
    """Noise of a layer, [batch or 1, ...]: random per image, the stored `const`, [1, ...], or none."""
    if noise_mode not in NOISE_MODES:
        raise ValueError(f"noise_mode must be one of {', '.join(NOISE_MODES)}; got '{noise_mode}'")
    if noise_mode == "random":
        return torch.randn(batch, *const.shape[1:], dtype=const.dtype, device=const.device)
    return const if noise_mode == "const" else None


def uniform_parameter(shape: list[int], fan_in: int) -> nn.Parameter:
    """A parameter drawn uniformly from -1/sqrt(fan_in) .. 1/sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


class Modulation(NamedTuple):
    """Factors on the channels of one encoder layer, from the style vectors of a batch; each [batch, 1, channels]."""

    style: Tensor  # of the input, in the dtype of the weights
    query_value: Tensor  # queries: demodulation of queries times that of keys; values: demodulation times their style
    out: Tensor  # demodulation of the output map
    skip: Tensor  # demodulation of the residual map


class EncoderLayer(nn.Module):
    """Pre-norm modulated self-attention with a modulated residual, noise and leaky ReLU.

    The demodulation of queries and keys multiplies their product, so both factors are applied to the queries; those of the
    values commute with attention. So no weight per sample and no attention matrix is stored.

    The large products are computed in the dtype of the tokens; styles, demodulation and layer normalisation in that of the
    weights.
    """

    noise_const: Tensor

    def __init__(self, config: GeneratorConfig, num_tokens: int, width: int, out_width: int) -> None:
        super().__init__()
        self.width, self.out_width = width, out_width
        self.num_heads = config.num_heads(width)
        self.clamp = config.clamp
        self.affine = EqualizedLinear(config.w_dim, 2 * width, bias_init=1)
        self.qvk_weight = uniform_parameter([3 * width, width], width)  # rows: queries, values, keys
        self.out_weight = uniform_parameter([out_width, width], width)
        self.skip_weight = uniform_parameter([out_width, width], width)
        self.proj_weight: nn.Parameter | None = None  # Linformer: shared by keys, values and heads
        if config.is_projected(num_tokens):
            self.proj_weight = uniform_parameter([config.linformer_tokens, num_tokens], num_tokens)
            if config.linformer_lr_mult is not None:
                # training.state.parameter_groups reads it
                self.proj_weight.lr_mult = config.linformer_lr_mult / num_tokens  # type: ignore[attr-defined]
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_width))
        self.register_buffer("noise_const", torch.randn(num_tokens, 1))

    def forward(self, x: Tensor, w: Tensor | Modulation, noise_mode: str = "random") -> Tensor:
        """Tokens [batch, tokens, width] to tokens [batch, tokens, out_width].

        `w` are style vectors, [batch, w_dim], or their `modulations`.
        """
        factors = self.factors(w, x.dtype)
        normalized = F.layer_norm(x * factors.style, [self.width]).to(x.dtype)
        value, mixed = self.attend(normalized, factors)
        y = F.linear(mixed, self.out_weight.to(x.dtype)) * factors.out
        y = y + F.linear(value, self.skip_weight.to(x.dtype)) * factors.skip
        noise = layer_noise(self.noise_const.unsqueeze(0), len(y), noise_mode)
        strength = None if noise is None else self.noise_strength
        clamp = output_bound(self.clamp, y.dtype)
        return bias_act(y, self.bias, dim=2, act="lrelu", gain=1, clamp=clamp, noise=noise, noise_strength=strength)

    def factors(self, w: Tensor | Modulation, dtype: torch.dtype) -> Modulation:
        """The factors of style vectors [batch, w_dim]; factors are returned unchanged."""
        return modulations([self], [w], dtype)[0] if isinstance(w, Tensor) else w

    def attend(self, x: Tensor, factors: Modulation) -> tuple[Tensor, Tensor]:
        """The modulated values of all tokens, and the output of attention; both [batch, tokens, width]."""
        weight, width = self.qvk_weight.to(x.dtype), self.width
        if self.proj_weight is None:
            query_value, key = F.linear(x, weight).split([2 * width, width], dim=2)
            query, value = (query_value * factors.query_value).chunk(2, dim=2)
            seen_value = value
        else:  # the projection commutes with the channel maps: project the tokens once, then compute values and keys
            query, value = (F.linear(x, weight[: 2 * width]) * factors.query_value).chunk(2, dim=2)
            seen_value, key = F.linear(self.proj_weight.to(x.dtype) @ x, weight[width:]).chunk(2, dim=2)
            seen_value = seen_value * factors.query_value[:, :, width:]
        query, key, seen_value = (self.split_heads(part) for part in (query, key, seen_value))
        mixed = F.scaled_dot_product_attention(query, key, seen_value)
        return value, mixed.transpose(1, 2).flatten(2)

    def split_heads(self, x: Tensor) -> Tensor:
        """[batch, tokens, width] to [batch, heads, tokens, width / heads]; a head is a run of adjacent channels."""
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


def modulations(layers: Sequence[EncoderLayer], ws: Sequence[Tensor], dtype: torch.dtype) -> list[Modulation]:
    """The factors of each layer from its style vectors, [batch, w_dim]; layers of one shape are computed together.

    `dtype` is that of the tokens and of all factors except `style`.
    """
    found: dict[int, Modulation] = {}
    for indices in indices_by_key((layer.width, layer.out_width) for layer in layers):
        group = [layers[index] for index in indices]
        width = group[0].width
        styles = affine_styles([layer.affine for layer in group], [ws[index] for index in indices])
        style, value_style = styles.chunk(2, dim=2)
        value_style = bounded(value_style, dtype)
        query_value, key = demodulation(style, [layer.qvk_weight for layer in group]).tensor_split([2 * width], dim=2)
        query_value = query_value * torch.cat([key, value_style], dim=2)
        output_maps = [weight for layer in group for weight in (layer.out_weight, layer.skip_weight)]
        out, skip = demodulation(value_style, output_maps).to(dtype).chunk(2, dim=2)
        factors = (style, query_value.to(dtype), out, skip)
        each = zip(*(factor.unsqueeze(2).unbind() for factor in factors), strict=True)
        found |= zip(indices, (Modulation(*parts) for parts in each), strict=True)
    return [found[index] for index in range(len(layers))]
