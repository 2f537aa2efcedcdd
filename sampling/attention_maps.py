"""What a point of an image looks at: attention weights of the encoder layers, computed aside from their fast path."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.attention import EncoderLayer, Modulation
from training.networks.generator import Stage, SynthesisNetwork

Point = tuple[int, int]  # y, x of an image, px


def attention_rows(layer: EncoderLayer, x: Tensor, w: Tensor | Modulation, tokens: Sequence[int]) -> Tensor:
    """The rows of a layer's attention matrices that belong to some tokens; each sums to 1.

    The layer itself never makes these matrices. Queries and keys are computed anew from what it is given.

    Args:
        layer: Any encoder layer.
        x: Its input, [batch, tokens, width].
        w: Its style vectors, [batch, w_dim], or the factors made of them.
        tokens: Which queries.

    Returns:
        [batch, heads, queries, keys]; the keys are the tokens, or what the Linformer projection makes of them.
    """
    factors = layer.factors(w, x.dtype)
    x = F.layer_norm(x * factors.style, [layer.width])
    query_weight, _, key_weight = layer.qvk_weight.chunk(3)
    query = layer.split_heads(F.linear(x[:, list(tokens)], query_weight) * factors.query_value[:, :, : layer.width])
    key = layer.split_heads(F.linear(x if layer.proj_weight is None else layer.proj_weight @ x, key_weight))
    return (query @ key.mT / math.sqrt(query.shape[3])).softmax(dim=3)


def token_weights(layer: EncoderLayer, rows: Tensor) -> Tensor:
    """By which factor the value of each token enters the mix, [batch, heads, queries, tokens].

    Without a projection these are the rows themselves. With Linformer's projection P a layer mixes A (P V) = (A P) V, and
    this is A P: exact, but of either sign, and a row sums to anything.
    """
    return rows if layer.proj_weight is None else rows @ layer.proj_weight


@dataclass(frozen=True)
class LayerAttention:
    """What some points of one image look at in one layer."""

    layer: int  # counted from 0 over all stages, as the styles are
    weights: Tensor  # [heads, points, height, width], see `token_weights`
    is_projected: bool  # by Linformer

    @property
    def shares(self) -> Tensor:
        """The part of the whole influence that comes from each place, [heads, points, height, width]; a map sums to 1.

        It is the magnitude of the weights over its sum: the attention itself, except for Linformer's signed weights.
        """
        magnitude = self.weights.abs()
        return magnitude / magnitude.sum(dim=(2, 3), keepdim=True)


def token_at(point: Point, image_size: tuple[int, int], stage_size: tuple[int, int]) -> int:
    """The token of a stage that a point of the image belongs to; both sizes are (height, width)."""
    y, x = (place * side // image_side for place, side, image_side in zip(point, stage_size, image_size, strict=True))
    return y * stage_size[1] + x


def encoder_layers(synthesis: SynthesisNetwork) -> list[tuple[EncoderLayer, tuple[int, int]]]:
    """All encoder layers in the order of their styles, each with its (height, width)."""
    found = []
    for stage in synthesis.stages:
        assert isinstance(stage, Stage)
        for layer in stage.layers:
            assert isinstance(layer, EncoderLayer)
            found.append((layer, stage.size))
    return found


@torch.no_grad()
def attention_maps(
    synthesis: SynthesisNetwork, ws: Tensor, points: Sequence[Point], layers: Sequence[int], noise_mode: str = "const"
) -> tuple[list[LayerAttention], Tensor]:
    """What points of an image look at in some layers, while it is made; and the image.

    Args:
        synthesis: In eval mode.
        ws: Styles of one image, [1, num_ws, w_dim].
        points: In the image.
        layers: Counted from 0 over all stages.
        noise_mode: const or none; random noise gives another image each time.

    Returns:
        One item for each of the layers, in their order, and the image, [1, channels, height, width].
    """
    all_layers = encoder_layers(synthesis)
    found: dict[int, LayerAttention] = {}
    handles = []
    try:
        for index in layers:
            layer, size = all_layers[index]
            tokens = [token_at(point, synthesis.sizes[-1], size) for point in points]
            handles.append(layer.register_forward_pre_hook(recorder(found, index, size, tokens)))
        image = synthesis(ws, noise_mode=noise_mode)
    finally:
        for handle in handles:
            handle.remove()
    return [found[index] for index in layers], image


def recorder(
    found: dict[int, LayerAttention], index: int, size: tuple[int, int], tokens: Sequence[int]
) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """A forward pre-hook that puts the attention of an encoder layer into `found`."""

    def record(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(layer, EncoderLayer)
        x, w, *_ = inputs
        weights = token_weights(layer, attention_rows(layer, x, w, tokens))[0].unflatten(2, size)
        found[index] = LayerAttention(index, weights, layer.proj_weight is not None)

    return record
