"""Tables of styles: mixing, truncation, classes."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sampling.renderer import Renderer, Request, styles
from sampling.tables import draw, mix, truncation_sweep, write_mixing_table
from training.networks.generator import Generator


def test_mixed_styles_are_those_of_the_column_and_the_others_those_of_the_row(generator: Generator) -> None:
    rows, cols = styles(generator, [1, 2, 3], Request()), styles(generator, [4, 5], Request())
    mixed = mix(rows, cols, [0, 2])
    for i in range(3):
        for j in range(2):
            assert torch.equal(mixed[i, j, [0, 2]], cols[j, [0, 2]])
            assert torch.equal(mixed[i, j, [1, 3]], rows[i, [1, 3]])


def test_mixing_table_and_single_images(generator: Generator, tmp_path: Path) -> None:
    renderer = Renderer(generator, batch=1)
    write_mixing_table(renderer, [1, 2], [3, 4, 5], [0, 1], Request(), tmp_path / "mix.png")
    own = {path.name for path in tmp_path.iterdir()}
    assert own == {"mix.png", *(f"{seed}-{seed}.png" for seed in range(1, 6))} | {
        f"{row}-{col}.png" for row in (1, 2) for col in (3, 4, 5)
    }
    height, width = generator.img_height, generator.img_width
    table = np.asarray(Image.open(tmp_path / "mix.png"))
    assert table.shape[:2] == (3 * height, 4 * width)
    assert not table[:height, :width].any()

    def cell(row: int, column: int) -> np.ndarray:
        return table[row * height : (row + 1) * height, column * width : (column + 1) * width]

    assert np.array_equal(cell(0, 3), np.asarray(Image.open(tmp_path / "5-5.png")))
    assert np.array_equal(cell(2, 0), np.asarray(Image.open(tmp_path / "2-2.png")))
    assert np.array_equal(cell(2, 3), np.asarray(Image.open(tmp_path / "2-5.png")))
    expected = next(renderer.seed_batches([5], Request()))[0].permute(1, 2, 0).squeeze().numpy()
    assert np.array_equal(cell(0, 3), expected)


def test_psi_of_one_is_the_seed_and_of_zero_the_same_in_all_rows(generator: Generator) -> None:
    ws = styles(generator, [1, 2, 3], Request())
    table = truncation_sweep(generator, ws, [-1, 0, 0.5, 1], None)
    assert torch.equal(table[:, 3], ws)
    assert torch.equal(table[0, 1], table[2, 1])
    images = draw(Renderer(generator, batch=1), table, [1, 2, 3])
    assert torch.equal(images[0, 1], images[1, 1])
    assert not torch.equal(images[0, 3], images[1, 3])
    own = torch.cat(list(Renderer(generator, batch=1).seed_batches([1, 2, 3], Request(psi=0.5))))
    assert torch.equal(images[:, 2], own)
    assert torch.allclose(table[:, 0] + table[:, 3], 2 * table[:, 1], atol=1e-5)  # opposite sides of the mean
