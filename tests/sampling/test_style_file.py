"""Styles are read from a file as they were written; other files are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sampling.renderer import Request, styles
from sampling.style_file import load_styles, save_styles
from training.networks.generator import Generator


def test_styles_and_seeds_are_read_as_written(generator: Generator, tmp_path: Path) -> None:
    ws = styles(generator, [4, 9], Request(psi=0.6, cutoff=2))
    save_styles(tmp_path / "w.npz", ws, [4, 9])
    loaded, seeds = load_styles(tmp_path / "w.npz", generator)
    assert torch.equal(loaded, ws) and seeds == [4, 9]
    with np.load(tmp_path / "w.npz") as arrays:
        assert arrays["w"].dtype == np.float32
    save_styles(tmp_path / "w.npz", ws)
    assert load_styles(tmp_path / "w.npz", generator)[1] == [0, 1]


def test_one_vector_per_image_is_repeated_for_all_layers(generator: Generator, tmp_path: Path) -> None:
    w = np.random.default_rng(0).standard_normal((3, generator.w_dim))
    np.savez(tmp_path / "w.npz", w=w)
    loaded, _ = load_styles(tmp_path / "w.npz", generator)
    assert torch.equal(loaded, torch.as_tensor(w, dtype=torch.float32)[:, None].expand(-1, generator.num_ws, -1))


@pytest.mark.parametrize("dtype", [np.longdouble, ">f4", np.float16])
def test_floats_of_any_kind_are_read(conditional: Generator, tmp_path: Path, dtype: type | str) -> None:
    w = np.random.default_rng(0).integers(-9, 9, (3, conditional.w_dim))
    np.savez(tmp_path / "w.npz", w=w.astype(dtype))
    loaded, _ = load_styles(tmp_path / "w.npz", conditional)
    assert loaded.dtype == torch.float32 and torch.equal(loaded[:, 0], torch.from_numpy(w).float())


SHAPES = [(16,), (0, 4, 16), (2, 5, 16), (2, 4, 15), (2, 15), (1, 2, 4, 16)]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        *(
            ({"w": np.zeros(shape, np.float32)}, r": w is \[.*needs \[count, 4, 16\] or \[count, 16\]")
            for shape in SHAPES
        ),
        ({"w": np.array([{"a": 1}], dtype=object)}, ": not an .npz file of numbers"),
        ({"w": np.full((1, 16), np.nan)}, "finite"),
        ({"w": np.full((1, 16), 1e300)}, "finite"),
        ({"v": np.zeros((1, 16))}, "no array w"),
        (None, "damaged"),
    ],
)
def test_other_files_are_refused(conditional, tmp_path, arrays, message) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, **arrays or {"w": np.zeros((1, 16))})
    if arrays is None:
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"--w=.*w\.npz.*{message}"):
        load_styles(path, conditional)
