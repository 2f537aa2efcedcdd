"""Precision, recall, density and coverage against recorded values of other programs and against their definition."""

import numpy as np
import pytest
import torch
from inception_golden import recorded_features
from torch import Tensor

from metrics.distances import neighbours
from metrics.distances.neighbours import density_coverage, precision_recall

CPU = torch.device("cpu")


def measured(real: Tensor, fake: Tensor, k: int, device: torch.device = CPU) -> dict[str, float]:
    precision, recall = precision_recall(real, fake, k, device)
    density, coverage = density_coverage(real, fake, k, device)
    return {"precision": precision, "recall": recall, "density": density, "coverage": coverage}


def by_definition(real: Tensor, fake: Tensor, k: int, is_strict: bool = False) -> dict[str, float]:
    """The same from differences of rows; `is_strict` leaves the edge of balls out."""
    within_real, within_fake, between = (
        torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")
        for a, b in ((real, real), (fake, fake), (real, fake))
    )
    real_radii, fake_radii = within_real.sort(dim=1).values[:, k, None], within_fake.sort(dim=1).values[:, k]
    in_real = between < real_radii if is_strict else between <= real_radii
    in_fake = between < fake_radii if is_strict else between <= fake_radii
    return {
        "precision": in_real.any(dim=0).double().mean().item(),
        "recall": in_fake.any(dim=1).double().mean().item(),
        "density": in_real.sum().item() / (k * len(fake)),
        "coverage": in_real.any(dim=1).double().mean().item(),
    }


@pytest.mark.parametrize("case", ["full", "lowrank"])
@pytest.mark.parametrize("k", [3, 5])
def test_counts_are_those_of_other_programs(case: str, k: int) -> None:
    real, fake, values = recorded_features(case)
    found = measured(real, fake, k)
    counts = {"precision": len(fake), "recall": len(real), "density": k * len(fake), "coverage": len(real)}
    for name, count in counts.items():
        assert found[name] == pytest.approx(values[f"{case}.prdc.k{k}_{name}"], rel=1e-12)
        assert found[name] * count == pytest.approx(round(found[name] * count), abs=1e-9)
    for name in ("precision", "recall"):  # recorded in float32
        assert found[name] == pytest.approx(values[f"{case}.torch_fidelity.k{k}_{name}"], abs=1e-7)


def test_the_edge_belongs_to_a_ball() -> None:
    """Points of a grid, all of whose distances are whole and most of them equal to others."""
    random = np.random.RandomState(0)
    real, fake = (torch.from_numpy(random.randint(0, 9, (count, 2)).astype(np.float32)) for count in (60, 40))
    expected, strict = by_definition(real, fake, 3), by_definition(real, fake, 3, is_strict=True)
    assert measured(real, fake, 3) == pytest.approx(expected)
    assert all(abs(expected[name] - strict[name]) > 0.05 for name in expected)
    line = torch.arange(4.0).unsqueeze(1)
    for end, inside in ((-1.0, 1.0), (-1.001, 0.0), (4.0, 1.0), (4.001, 0.0)):
        assert precision_recall(line, torch.tensor([[end], [end]]), 1, CPU) == (inside, 0.0)


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (300.0, 0.1), (1e5, 10.0), (-1e9, 1e6)])
def test_copies_are_on_the_edge(offset: float, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ball has its own row and k more, the last one on its edge, however the sums of 4096 products are rounded."""
    rows = torch.randn(203, 4096, generator=torch.Generator().manual_seed(0)) * scale + offset
    for rows_at_once in (2048, 37):
        monkeypatch.setattr(neighbours, "_ROWS_AT_ONCE", rows_at_once)
        assert measured(rows, rows.flip(0), 3) == {"precision": 1, "recall": 1, "density": 4 / 3, "coverage": 1}


def test_a_collapsed_generator() -> None:
    """All generated images alike: none of the real ones is reached, but for the one that is copied."""
    real = torch.randn(50, 64, generator=torch.Generator().manual_seed(0)) + 100
    fake = real[:1].expand(20, -1)
    precision, recall = precision_recall(real, fake, 3, CPU)
    assert (precision, recall) == (1.0, 1 / 50)
    assert measured(real, fake, 3) == pytest.approx(by_definition(real, fake, 3))
    assert measured(fake, fake, 3) == {"precision": 1, "recall": 1, "density": 20 / 3, "coverage": 1}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
def test_counts_on_a_gpu() -> None:
    real, fake, _ = recorded_features("full")
    assert measured(real, fake, 3, torch.device("cuda")) == measured(real, fake, 3)
    rows = torch.randn(2500, 4096, generator=torch.Generator().manual_seed(0)) + 10
    expected = {"precision": 1, "recall": 1, "density": 4 / 3, "coverage": 1}
    assert measured(rows, rows.flip(0), 3, torch.device("cuda")) == expected
