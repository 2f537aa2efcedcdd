"""Styles survive a file to the last bit; anything else in it is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sampling.style_file import load_styles, save_styles
from sampling.styles import Request, styles
from training.networks.generator import Generator


def test_styles_come_back_to_the_last_bit(generator: Generator, tmp_path: Path) -> None:
    ws = styles(generator, [4, 9], Request(psi=0.6, cutoff=2))
    save_styles(tmp_path / "w.npz", ws, [4, 9])
    assert torch.equal(load_styles(tmp_path / "w.npz", generator)[0], ws)
    with np.load(tmp_path / "w.npz") as arrays:
        assert arrays["w"].dtype == np.float32
        assert arrays["seeds"].tolist() == [4, 9]


def test_one_vector_serves_all_layers(generator: Generator, tmp_path: Path) -> None:
    w = np.random.default_rng(0).standard_normal((3, generator.w_dim))
    np.savez(tmp_path / "w.npz", w=w)
    loaded, _ = load_styles(tmp_path / "w.npz", generator)
    assert loaded.shape == (3, generator.num_ws, generator.w_dim)
    assert torch.equal(loaded[:, 0], torch.as_tensor(w, dtype=torch.float32))
    assert torch.equal(loaded[:, 0], loaded[:, -1])


@pytest.mark.parametrize("shape", [(16,), (0, 4, 16), (2, 5, 16), (2, 4, 15), (2, 15), (1, 2, 4, 16)])
def test_other_shapes_are_named(conditional: Generator, tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "w.npz", w=np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match=r"w\.npz: w is \[.*but this network takes \[count, 4, 16\] or \[count, 16\]"):
        load_styles(tmp_path / "w.npz", conditional)


def test_what_is_no_array_of_numbers_is_refused(conditional: Generator, tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, w=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"--w=.*w\.npz: not a \.npz file of numbers"):
        load_styles(path, conditional)
    np.savez(path, w=np.full((1, 16), np.nan))
    with pytest.raises(ValueError, match="finite"):
        load_styles(path, conditional)
    np.savez(path, v=np.zeros((1, 16)))
    with pytest.raises(ValueError, match="no array named w"):
        load_styles(path, conditional)
    for content in (b"", b"nonsense", path.read_bytes()[:100]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            load_styles(path, conditional)
    np.save(tmp_path / "plain.npy", np.zeros((1, 16)))
    with pytest.raises(ValueError, match=r"not a \.npz file"):
        load_styles(tmp_path / "plain.npy", conditional)
    with pytest.raises(ValueError, match="there is no such file"):
        load_styles(tmp_path / "missing.npz", conditional)


def test_the_seeds_of_random_noise_come_back(generator: Generator, tmp_path: Path) -> None:
    ws = torch.randn(3, generator.num_ws, generator.w_dim)
    save_styles(tmp_path / "w.npz", ws, [7, 1, 4])
    assert load_styles(tmp_path / "w.npz", generator)[1] == [7, 1, 4]
    save_styles(tmp_path / "w.npz", ws)
    assert load_styles(tmp_path / "w.npz", generator)[1] == [0, 1, 2]
