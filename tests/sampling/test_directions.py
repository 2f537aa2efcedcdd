"""Directions in closed form: an analytic case, and what must hold for any network."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sampling.directions import Directions, find_directions
from sampling.renderer import random_w
from training.config import DatasetSpec, RunConfig
from training.networks.generator import Generator


@pytest.fixture
def generator(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> Generator:
    torch.manual_seed(0)
    return Generator(tiny_config.generator, tiny_spec).eval().requires_grad_(False)


def test_every_style_has_its_readers(generator: Generator) -> None:
    """Layers 0 | 1, 2 in two stages: the ToRGB of a stage reads the style after its last layer's."""
    stages = generator.synthesis.stages
    expected = [
        [stages[0].layers[0].affine],
        [stages[0].to_rgb.affine, stages[1].layers[0].affine],
        [stages[1].layers[1].affine],
        [stages[1].to_rgb.affine],
    ]
    assert generator.style_layers() == expected


@pytest.mark.parametrize("layers", [[0], [1, 2], [0, 1, 2, 3]])
def test_directions_are_orthonormal_and_ordered_by_their_effect(generator: Generator, layers: list[int]) -> None:
    found = find_directions(generator, layers, 6, random_w(generator, 100, seed=0))
    torch.testing.assert_close(found.vectors @ found.vectors.T, torch.eye(6))
    assert (found.eigenvalues.diff() <= 0).all()
    readers = [affine for layer in layers for affine in generator.style_layers()[layer]]
    zero = torch.zeros(1, generator.w_dim)
    effect = sum((affine(found.vectors) - affine(zero)).square().sum(dim=1) for affine in readers)
    torch.testing.assert_close(effect, found.eigenvalues)
    anything = torch.nn.functional.normalize(torch.randn(200, generator.w_dim))
    assert sum((affine(anything) - affine(zero)).square().sum(dim=1) for affine in readers).max() < effect[0]


def test_hand_made_weights_give_their_axes(generator: Generator) -> None:
    affine = generator.synthesis.stages[0].layers[0].affine
    affine.weight.zero_()
    affine.weight[3, 7] = 4 / affine.weight_gain
    affine.weight[5, 2] = -2 / affine.weight_gain
    samples = torch.zeros(2, generator.w_dim)
    samples[0, 7], samples[1, 7] = 3, -3
    found = find_directions(generator, [0], 2, samples)
    torch.testing.assert_close(found.eigenvalues, torch.tensor([16.0, 4.0]))
    assert found.vectors.tolist() == [[float(i == 7) for i in range(16)], [float(i == 2) for i in range(16)]]
    torch.testing.assert_close(found.spreads, torch.tensor([3.0, 0.0]))


def test_moving_changes_the_chosen_styles_alone_and_no_steps_change_nothing(generator: Generator) -> None:
    found = find_directions(generator, [1, 3], 2, random_w(generator, 100, seed=0))
    ws = generator.mapping(torch.randn(3, generator.z_dim))
    assert torch.equal(found.move(ws, 1, 0.0), ws)
    moved = found.move(ws, 1, 2.0) - ws
    assert torch.equal(moved[:, [0, 2]], torch.zeros(3, 2, generator.w_dim))
    expected = (2 * found.spreads[1] * found.vectors[1]).expand(3, 2, -1)
    torch.testing.assert_close(moved[:, [1, 3]], expected)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layers": np.array([], int)}, "do not match"),
        ({"layers": np.array([-1])}, "do not match"),
        ({"spreads": np.ones(3)}, "do not match"),
        ({"vectors": np.ones(4)}, "do not match"),
        ({"spreads": np.array([1, np.nan])}, "not finite"),
        ({"vectors": np.array([None])}, "not a directions.npz"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, wrong: dict[str, np.ndarray], message: str) -> None:
    arrays = {"layers": np.array([0]), "vectors": np.eye(2, 4), "eigenvalues": np.ones(2), "spreads": np.ones(2)}
    np.savez(tmp_path / "wrong.npz", **arrays)
    Directions.load(tmp_path / "wrong.npz")
    np.savez(tmp_path / "wrong.npz", **arrays | wrong)
    with pytest.raises(ValueError, match=message):
        Directions.load(tmp_path / "wrong.npz")
