"""Attention weights of the encoder layers for some points of an image; the layers themselves never compute them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.attention import EncoderLayer, Modulation
from training.networks.generator import Generator, Stage, SynthesisNetwork

Point = tuple[int, int]  # y, x of an image, px


def attention_rows(layer: EncoderLayer, x: Tensor, w: Tensor | Modulation, tokens: Sequence[int]) -> Tensor:
    """The rows of a layer's attention matrices that belong to some tokens; each sums to 1.

    Args:
        x: Its input, [batch, tokens, width].
        w: Its style vectors, [batch, w_dim], or the factors computed from them.

    Returns:
        [batch, heads, queries, keys]; the keys are the tokens, or their Linformer projections.
    """
    factors = layer.factors(w, x.dtype)
    x = F.layer_norm(x * factors.style, [layer.width])
    query_weight, _, key_weight = layer.qvk_weight.chunk(3)
    query = layer.split_heads(F.linear(x[:, list(tokens)], query_weight) * factors.query_value[:, :, : layer.width])
    key = layer.split_heads(F.linear(x if layer.proj_weight is None else layer.proj_weight @ x, key_weight))
    return (query @ key.mT / math.sqrt(query.shape[3])).softmax(dim=3)


def token_weights(layer: EncoderLayer, rows: Tensor) -> Tensor:
    """The factor with which the value of each token enters the output, [batch, heads, queries, tokens].

    Without a projection these are the rows themselves. With Linformer's projection P a layer computes A (P V) = (A P) V,
    and this is A P: exact, but of either sign, and a row need not sum to 1.
    """
    return rows if layer.proj_weight is None else rows @ layer.proj_weight


@dataclass(frozen=True)
class LayerAttention:
    """The attention of some points of one image in one layer."""

    layer: int  # index over all stages
    weights: Tensor  # [heads, points, height, width], see `token_weights`
    is_projected: bool  # by Linformer

    @property
    def shares(self) -> Tensor:
        """|weights| divided by their sum, [heads, points, height, width]: the attention itself without Linformer."""
        magnitude = self.weights.abs()
        return magnitude / magnitude.sum(dim=(2, 3), keepdim=True)


def token_at(point: Point, image_size: tuple[int, int], stage_size: tuple[int, int]) -> int:
    """The token of a stage that covers a point of the image; sizes are (height, width)."""
    y, x = (place * side // image_side for place, side, image_side in zip(point, stage_size, image_size, strict=True))
    return y * stage_size[1] + x


def encoder_layers(generator: Generator) -> list[tuple[EncoderLayer, tuple[int, int]]]:
    """All encoder layers, ordered as their styles, each with its (height, width). Raises ValueError if there are none."""
    if not isinstance(generator.synthesis, SynthesisNetwork):
        raise ValueError("this network has no attention layers")
    found = []
    for stage in generator.synthesis.stages:
        assert isinstance(stage, Stage)
        for layer in stage.layers:
            assert isinstance(layer, EncoderLayer)
            found.append((layer, stage.size))
    return found


@torch.no_grad()
def attention_maps(
    generator: Generator, ws: Tensor, points: Sequence[Point], layers: Sequence[int]
) -> tuple[list[LayerAttention], Tensor]:
    """The attention of some points in each of `layers`, and the image, [1, channels, height, width].

    Args:
        generator: In eval mode.
        ws: Styles of one image, [1, num_ws, w_dim].
    """
    all_layers = encoder_layers(generator)
    image_size = (generator.img_height, generator.img_width)
    index_of = {layer: index for index, (layer, _) in enumerate(all_layers)}
    found: dict[int, LayerAttention] = {}

    def record(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(layer, EncoderLayer)
        index = index_of[layer]
        size = all_layers[index][1]
        tokens = [token_at(point, image_size, size) for point in points]
        weights = token_weights(layer, attention_rows(layer, inputs[0], inputs[1], tokens))[0].unflatten(2, size)
        found[index] = LayerAttention(index, weights, layer.proj_weight is not None)

    handles = [all_layers[index][0].register_forward_pre_hook(record) for index in layers]
    try:
        image = generator.synthesis(ws, noise_mode="const")
    finally:
        for handle in handles:
            handle.remove()
    return [found[index] for index in layers], image
