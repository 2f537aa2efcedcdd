"""The nearest rows of a large set, which is gone through in batches and never held."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

_EQUAL = 1e-10  # squared distance, in squared lengths of the query, of rows that differ by rounding only


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows of each query, by increasing distance; equal distances in the order of the set."""

    distances: Tensor  # Euclidean, float64 [queries, count]
    indices: Tensor  # int64 [queries, count]


def nearest(queries: Tensor, batches: Iterable[Tensor], count: int, excluded: Tensor | None = None) -> Neighbours:
    """The `count` nearest rows of a set for each query.

    Distances of whole numbers, such as those of pixels, are exact up to their root; others are computed in float64.

    Args:
        queries: [queries, dim].
        batches: The set, cut into [rows, dim] in its order.
        count: At most as many as the set has, without the excluded ones.
        excluded: Indices that do not count for each query, [queries, any number], as rows equal to it do not;
            None = all count.

    Raises:
        ValueError: The set has too few rows.
    """
    queries = queries.double()
    squares = queries.square().sum(dim=1, keepdim=True)
    distances = torch.empty(len(queries), 0, dtype=torch.float64, device=queries.device)
    indices = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    start = 0
    for batch in batches:
        rows = batch.double()
        here = torch.arange(start, start + len(rows), device=queries.device).expand(len(queries), -1)
        found = (squares + rows.square().sum(dim=1) - 2 * queries @ rows.T).clamp(min=0)
        if excluded is not None:
            found[(here[:, :, None] == excluded[:, None, :]).any(dim=2) | (found <= _EQUAL * squares)] = torch.inf
        distances, indices = torch.cat([distances, found], dim=1), torch.cat([indices, here], dim=1)
        distances, order = distances.sort(dim=1, stable=True)
        distances, indices = distances[:, :count], indices.gather(1, order[:, :count])
        start += len(rows)
    if distances.shape[1] < count or distances.isinf().any():
        raise ValueError(
            f"the data set has only {start} images, too few for the {count} nearest ones of each; take fewer"
        )
    return Neighbours(distances.sqrt(), indices)
