"""Nearest rows found in a stream equal those of a comparison with all."""

import pytest
import torch
from torch import Tensor

from sampling.nearest import nearest


def brute_force(queries: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    differences = queries.double()[:, None] - rows.double()[None]
    found = differences.square().sum(dim=2).sqrt().sort(dim=1, stable=True)
    return found.values[:, :count], found.indices[:, :count]


@pytest.mark.parametrize("batch", [1, 7, 50, 100])
def test_stream_finds_what_a_comparison_with_all_finds(batch: int) -> None:
    torch.manual_seed(0)
    rows = torch.randint(0, 256, (100, 12), dtype=torch.uint8)
    queries = torch.randint(0, 256, (5, 12), dtype=torch.uint8)
    distances, indices = brute_force(queries, rows, 4)
    found = nearest(queries, rows.split(batch), 4)
    assert torch.equal(found.indices, indices)
    torch.testing.assert_close(found.distances, distances, rtol=1e-12, atol=0)


def test_a_row_of_the_set_is_found_at_distance_zero_even_among_large_numbers() -> None:
    rows = torch.randint(0, 256, (300, 3072), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    rows[200] = rows[100]
    rows[200, 5] ^= 1
    found = nearest(rows[[100]], rows.split(64), 2)
    assert found.distances.tolist() == [[0.0, 1.0]]
    assert found.indices.tolist() == [[100, 200]]


def test_excluded_rows_do_not_count() -> None:
    rows = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    found = nearest(rows[[0, 2]], rows.split(3), 2, excluded=torch.tensor([[0, 3], [2, 1]]))
    assert found.indices.tolist() == [[1, 2], [0, 3]]
    assert found.distances.tolist() == [[1, 3], [3, 4]]


def test_equal_distances_come_in_the_order_of_the_set() -> None:
    rows = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    assert nearest(torch.zeros(1, 1), rows.split(2), 4).indices.tolist() == [[0, 1, 2, 3]]


def test_a_set_that_is_too_small_is_refused() -> None:
    rows = torch.rand(4, 3)
    with pytest.raises(ValueError, match="only 4 images"):
        nearest(rows[:1], rows.split(2), 5)
    with pytest.raises(ValueError, match="only 4 images"):
        nearest(rows[:1], rows.split(2), 4, excluded=torch.tensor([[0]]))
