"""Sheets show images unchanged, enlarged by integer factors; sheets of attention show heat where the attention is."""

import numpy as np
import pytest
import torch

from dnnlib.images.captions import enlargement, sheet
from sampling.attention_maps import LayerAttention, heat_cell, layer_sheet, parse_points

CELL = 96 + 4
LINE = CELL + 15


def find(page: np.ndarray, image: np.ndarray) -> bool:
    """Whether an image is somewhere on a page."""
    height, width = image.shape[:2]
    starts = np.argwhere((page[: len(page) - height + 1, : page.shape[1] - width + 1] == image[0, 0]).all(axis=2))
    return any(np.array_equal(page[y : y + height, x : x + width], image) for y, x in starts)


def test_every_image_is_enlarged_by_an_integer_factor() -> None:
    assert [enlargement(*size) for size in ((32, 32), (16, 24), (40, 96), (256, 256))] == [3, 4, 1, 1]
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (32, 24, 3), dtype=np.uint8) for _ in range(4)]
    page = sheet([[(images[0], "first"), (images[1], "")], [None, (images[2], ""), (images[3], "")]])
    assert page.dtype == np.uint8 and page.shape[2] == 3
    for image in images:
        assert find(page, image.repeat(3, axis=0).repeat(3, axis=1))


def test_captions_of_narrow_images_do_not_overlap() -> None:
    image = np.full((96, 24, 1), 128, np.uint8)
    one, two = sheet([[(image, "head 3  12.3x")]]), sheet([[(image, "head 3  12.3x"), (image, "")]])
    assert np.array_equal(two[:, : one.shape[1]], one)
    assert two[:15, one.shape[1] :].min() == 255


@pytest.mark.parametrize(("heads", "columns", "lines"), [(1, 3, 1), (8, 10, 1), (16, 10, 2)])
def test_rows_of_many_heads_are_wrapped(heads: int, columns: int, lines: int) -> None:
    attention = LayerAttention(0, torch.rand(heads, 2, 8, 8), False)
    page = layer_sheet(np.zeros((32, 32, 3), np.uint8), [(0, 0), (16, 16)], attention)
    assert page.shape == (4 + 2 * lines * LINE, 4 + columns * CELL, 3)


def test_heat_is_where_the_attention_is_and_a_flat_map_stays_dark() -> None:
    shares = torch.zeros(8, 16)
    shares[2, 5] = 1
    cell = heat_cell(np.full((32, 64, 3), 90, np.uint8), "head 0", shares, (31, 0))
    assert cell is not None and cell[1] == "head 0  128.0x"
    hot = cell[0][16:24, 40:48].mean()  # a token is 8 px of the enlarged image
    assert hot > 200 and cell[0][16:24, 56:60].mean() < 40
    flat = heat_cell(np.zeros((32, 32, 3), np.uint8), "mean", torch.full((8, 8), 1 / 64), (0, 0))
    assert flat is not None and flat[0][50:, 50:].max() < 200 and flat[1] == "mean  1.0x"


def test_points() -> None:
    assert parse_points("3,4; 5,6", 8, 16) == [(3, 4), (5, 6)]
    default = parse_points(None, 8, 16)
    assert len(set(default)) == 4 and all(0 <= y < 8 and 0 <= x < 16 for y, x in default)
    for text in ("3", "3;4", "a,b", "-1,2", "1.5,2", ""):
        with pytest.raises(ValueError, match="write points as y,x"):
            parse_points(text, 8, 16)
