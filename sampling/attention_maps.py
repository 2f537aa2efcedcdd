"""Attention of the encoder layers for some points of an image, as heat over it; the layers themselves never compute it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnnlib.images.animation import enlarged
from dnnlib.images.captions import Cell, as_colour, enlargement, sheet
from dnnlib.images.writer import write_image
from torch_utils.images import to_uint8
from training.evaluation.finite import require_finite
from training.networks.attention import EncoderLayer, Modulation
from training.networks.generator import Generator, Stage, SynthesisNetwork

Point = tuple[int, int]  # y, x of an image, px


def attention_rows(layer: EncoderLayer, x: Tensor, w: Tensor | Modulation, tokens: Sequence[int]) -> Tensor:
    """The rows of a layer's attention matrices that belong to some tokens, [batch, heads, queries, keys]; each sums to 1.

    The keys are the tokens, or their Linformer projections. x is the input, [batch, tokens, width], and w the style
    vectors, [batch, w_dim], or the factors computed from them.
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

    The generator is in eval mode, the styles are those of one image, [1, num_ws, w_dim]. Raises ValueError if the image is
    not finite.
    """
    all_layers = encoder_layers(generator)
    image_size = (generator.img_height, generator.img_width)
    found: dict[int, LayerAttention] = {}

    def record(index: int, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        layer, size = all_layers[index]
        tokens = [token_at(point, image_size, size) for point in points]
        weights = token_weights(layer, attention_rows(layer, inputs[0], inputs[1], tokens))[0].unflatten(2, size)
        found[index] = LayerAttention(index, weights, layer.proj_weight is not None)

    handles = [all_layers[index][0].register_forward_pre_hook(partial(record, index)) for index in layers]
    try:
        image = generator.synthesis(ws, noise_mode="const")
    finally:
        for handle in handles:
            handle.remove()
    return [found[index] for index in layers], require_finite(image)


HEADS_PER_ROW = 8
_DARKENED = 0.35  # brightness of the image below the heat
_HEAT = np.array([[0, 0, 0], [150, 20, 60], [235, 90, 20], [255, 205, 60], [255, 255, 225]])  # from none to most
_MARK, _MARK_EDGE = (0, 230, 255), (0, 0, 0)  # at least one of them contrasts with any image
_FULL_HEAT = 3.0  # the smallest multiple of an even share that is shown brightest, so that a flat map stays dark


def write_attention(
    generator: Generator, ws: Tensor, name: str, points: Sequence[Point], layers: Sequence[int], outdir: Path
) -> None:
    """Write NAME.png, the overview, and NAME-layerNN.png for each layer, of the image of styles [1, num_ws, w_dim]."""
    maps, image = attention_maps(generator, ws, points, layers)
    pixels = to_uint8(image)[0].permute(1, 2, 0).cpu().numpy()
    write_image(outdir / f"{name}.png", overview(pixels, points, maps))
    for attention in maps:
        write_image(outdir / f"{name}-layer{attention.layer:02d}.png", layer_sheet(pixels, points, attention))
    print(f"Overview: {outdir / name}.png; each of the {len(maps)} layers: {name}-layerNN.png")
    projected = [str(attention.layer) for attention in maps if attention.is_projected]
    if projected:
        print(f"Layers with Linformer's projection, which show the magnitude of the weights: {', '.join(projected)}")


def parse_points(text: str | None, height: int, width: int) -> list[Point]:
    """The points of "y,x;y,x" in an image of this size; None = four default points. Raises ValueError."""
    if text is None:
        return [(height // 2, width // 2), (height // 4, width // 4), (height // 4, 3 * width // 4),
                (3 * height // 4, width // 2)]  # fmt: skip
    points = []
    for part in text.split(";"):
        y, comma, x = (word.strip() for word in part.partition(","))
        if not (comma and y.isdecimal() and x.isdecimal()):
            raise ValueError(f"--points={text}: write points as y,x in pixels, such as --points='16,16;4,20'")
        if int(y) >= height or int(x) >= width:
            raise ValueError(
                f"--points={text}: {y},{x} is outside of the image; y is 0..{height - 1} and x is 0..{width - 1}"
            )
        points.append((int(y), int(x)))
    return points


def layer_sheet(pixels: np.ndarray, points: Sequence[Point], attention: LayerAttention) -> np.ndarray:
    """One layer: for each point the image, the mean over the heads, and each head; long rows are wrapped.

    Captions give the peak as a multiple of an even share; 1.0x is a flat map.
    """
    rows: list[list[Cell]] = []
    for i, point in enumerate(points):
        heads = [heat_cell(pixels, f"head {k}", maps[i], point) for k, maps in enumerate(attention.shares)]
        mean = heat_cell(pixels, "mean", attention.shares[:, i].mean(dim=0), point)
        for start in range(0, len(heads), HEADS_PER_ROW):
            begin: list[Cell] = [point_cell(pixels, point, attention), mean] if start == 0 else [None, None]
            rows.append(begin + heads[start : start + HEADS_PER_ROW])
    return sheet(rows)


def overview(pixels: np.ndarray, points: Sequence[Point], layers: Sequence[LayerAttention]) -> np.ndarray:
    """The mean over the heads: a row per point, a column per layer; uint8 [height, width, 3]."""
    rows: list[list[Cell]] = []
    for i, point in enumerate(points):
        row: list[Cell] = [point_cell(pixels, point, layers[-1])]
        for layer in layers:
            shares = layer.shares[:, i].mean(dim=0)
            row.append(heat_cell(pixels, f"{layer.layer}: {shares.shape[1]}x{shares.shape[0]}", shares, point))
        rows.append(row)
    return sheet(rows)


def point_cell(pixels: np.ndarray, point: Point, attention: LayerAttention) -> Cell:
    factor = enlargement(*pixels.shape[:2])
    marked = mark(as_colour(enlarged(pixels, factor)).copy(), point, pixels.shape[:2], attention.weights.shape[2:])
    return marked, f"at {point[0]},{point[1]}"


def heat_cell(pixels: np.ndarray, title: str, shares: Tensor, point: Point) -> Cell:
    """A map of shares, [height, width], over the image, with the point marked and the peak in the caption."""
    peak = float(shares.max()) * shares.numel()
    factor = enlargement(*pixels.shape[:2])
    image = as_colour(enlarged(pixels, factor)).mean(axis=2, keepdims=True) * _DARKENED
    rows, columns = (
        np.arange(side) * token_side // side for side, token_side in zip(image.shape[:2], shares.shape, strict=True)
    )
    level = (shares * shares.numel() / max(peak, _FULL_HEAT)).cpu().numpy()[np.ix_(rows, columns)]
    stops = np.linspace(0, 1, len(_HEAT))
    colours = np.stack([np.interp(level, stops, channel) for channel in _HEAT.T], axis=2)
    over = (image * (1 - level[:, :, None]) + colours).clip(0, 255).astype(np.uint8)
    return mark(over, point, pixels.shape[:2], shares.shape), f"{title}  {peak:.1f}x"


def mark(canvas: np.ndarray, point: Point, image_size: Sequence[int], token_size: Sequence[int]) -> np.ndarray:
    """Draw a frame around the token of a point into an enlarged image, uint8 [height, width, 3]; return it."""
    for colour, distance in ((_MARK_EDGE, 2), (_MARK, 1)):
        edges = []
        for place, image_side, tokens, side in zip(point, image_size, token_size, canvas.shape[:2], strict=True):
            token = place * tokens // image_side
            first, last = token * side // tokens - distance, (token + 1) * side // tokens - 1 + distance
            edges.append((max(first, 0), min(last, side - 1)))
        (top, bottom), (left, right) = edges
        canvas[[top, bottom], left : right + 1] = colour
        canvas[top : bottom + 1, [left, right]] = colour
    return canvas
