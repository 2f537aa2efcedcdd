"""Sheets of attention: readable with many heads, points read and placed."""

import numpy as np
import pytest
import torch

from sampling.attention_maps import LayerAttention
from sampling.attention_sheets import heat_cell, layer_sheet, overview, parse_points

CELL = 96 + 4
LINE = CELL + 15


@pytest.mark.parametrize(("heads", "columns", "lines"), [(1, 3, 1), (8, 10, 1), (16, 10, 2), (32, 10, 4)])
def test_many_heads_are_continued_in_further_lines(heads: int, columns: int, lines: int) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    attention = LayerAttention(0, torch.rand(heads, 2, 8, 8), False)
    sheet = layer_sheet(pixels, [(0, 0), (16, 16)], attention)
    assert sheet.shape == (4 + 2 * lines * LINE, 4 + columns * CELL, 3)


def test_overview_has_a_column_a_layer() -> None:
    pixels = np.zeros((32, 32, 1), np.uint8)
    layers = [LayerAttention(index, torch.rand(2, 3, size, size), False) for index, size in enumerate((8, 16, 32))]
    assert overview(pixels, [(0, 0)] * 3, layers).shape == (4 + 3 * LINE, 4 + 4 * CELL, 3)


def test_heat_is_where_the_attention_is() -> None:
    shares = torch.zeros(8, 16)
    shares[2, 5] = 1
    cell = heat_cell(np.full((32, 64, 3), 90, np.uint8), "head 0", shares, (31, 0))
    assert cell is not None
    heat, caption = cell
    assert caption == "head 0  128.0x"
    hot = heat[16:24, 40:48].mean()  # a token is 8 px of the enlarged image
    assert hot > 200 and heat[16:24, 56:60].mean() < 40


def test_a_map_without_choice_stays_dark() -> None:
    cell = heat_cell(np.zeros((32, 32, 3), np.uint8), "mean", torch.full((8, 8), 1 / 64), (0, 0))
    assert cell is not None and cell[0][50:, 50:].max() < 200 and cell[1] == "mean  1.0x"


@pytest.mark.parametrize("level", [0, 128, 255])
def test_the_frame_is_seen_on_any_image(level: int) -> None:
    pixels = np.full((32, 32, 3), level, np.uint8)
    cell = heat_cell(pixels, "", torch.full((32, 32), 1 / 1024), (16, 16))
    assert cell is not None
    around = cell[0][44:56, 44:56].reshape(-1, 3).astype(int)
    assert np.abs(around[:, None] - around[None]).max() > 150


def test_points_are_read_and_default_points_lie_inside() -> None:
    assert parse_points("3,4; 5,6", 8, 16) == [(3, 4), (5, 6)]
    for point in parse_points(None, 8, 16):
        assert 0 <= point[0] < 8 and 0 <= point[1] < 16
    assert len(set(parse_points(None, 8, 16))) == 4
    for text in ("3", "3;4", "a,b", "-1,2", "1.5,2", ""):
        with pytest.raises(ValueError, match="write points as y,x"):
            parse_points(text, 8, 16)
