"""Attention maps as heat over the darkened image: an overview of all layers, and a sheet per layer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from dnnlib.images.animation import enlarged
from dnnlib.images.captions import Cell, as_colour, enlargement, sheet
from dnnlib.images.writer import write_image
from sampling.attention_maps import LayerAttention, Point, attention_maps
from training.networks.generator import Generator
from training.run.preview import to_uint8

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
