"""Precision, recall, density and coverage: whether features of one set lie among those of another.

Each row of features has a ball that reaches to its k-th nearest neighbour in its own set (the (k+1)-th smallest distance,
the one to itself included). All sums of products are in float64, where the squared distance |x|^2 + |y|^2 - 2 x.y of
float32 features is good enough, after subtracting a common centre. Its rounding error is below 1e-13 of |x|^2 + |y|^2,
and distances that agree within that count as equal: a copy of a row is at distance 0, and on the edge of every ball
that ends at the row.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_ROUNDING = 1e-13
_ROWS_AT_ONCE = 2048  # of either set; a few tables of their squared distances are in memory


def precision_recall(real: Tensor, fake: Tensor, k: int, device: torch.device) -> tuple[float, float]:
    """Return the shares of generated rows in a real row's ball, and of real rows in a generated row's ball.

    Kynkaanniemi et al., Improved Precision and Recall Metric for Assessing Generative Models, 2019, equations 1 and 2;
    balls include their edge. Features, [n, dim] and [m, dim], k + 1 rows or more, may be elsewhere than `device`, which must
    have float64 and gets parts of them.
    """
    reals, fakes = _both(real, fake, device)
    real_radii, fake_radii = _squared_radii(reals, k), _squared_radii(fakes, k)
    is_precise = torch.zeros(len(fake), dtype=torch.bool, device=device)
    is_recalled = torch.zeros(len(real), dtype=torch.bool, device=device)
    for at, others, distances in _compare(reals, fakes):
        is_precise[others] |= (distances <= real_radii[at, None]).any(dim=0)
        is_recalled[at] |= (distances <= fake_radii[others]).any(dim=1)
    return _share(is_precise), _share(is_recalled)


def density_coverage(real: Tensor, fake: Tensor, k: int, device: torch.device) -> tuple[float, float]:
    """Return how many real rows' balls a generated row is in, divided by k, and the share of balls that have one.

    Naeem et al., Reliable Fidelity and Diversity Metrics for Generative Models, 2020, equations 3 and 4. Balls include
    their edge; the authors' program leaves it out, which shows only where distances are equal. Arguments as of
    `precision_recall`.
    """
    reals, fakes = _both(real, fake, device)
    radii = _squared_radii(reals, k)
    inside, is_covered = 0, torch.zeros(len(real), dtype=torch.bool, device=device)
    for at, _, distances in _compare(reals, fakes):
        is_inside = distances <= radii[at, None]
        inside += int(is_inside.sum())
        is_covered[at] |= is_inside.any(dim=1)
    return inside / (k * len(fake)), _share(is_covered)


def _share(chosen: Tensor) -> float:
    """Return the share of true values; divided on the host, because a GPU multiplies by a rounded reciprocal."""
    return int(chosen.sum()) / len(chosen)


@dataclass(frozen=True)
class _Block:
    """Some rows, centred, on the device: float64 [n, dim], and their squared lengths, [n]."""

    rows: Tensor
    squares: Tensor

    def squared_distances(self, other: "_Block", slack: float = 0.0) -> Tensor:
        """Return squared distances, [n, m], to the rows of another block, less a share of |x|^2 + |y|^2."""
        return torch.addmm((1 - slack) * (self.squares[:, None] + other.squares), self.rows, other.rows.T, alpha=-2)


@dataclass(frozen=True)
class _Points:
    """A set of rows, [n, dim], that are seen from a centre, [dim]."""

    rows: Tensor
    centre: Tensor
    device: torch.device

    def blocks(self, first: int = 0) -> Iterator[tuple[slice, _Block]]:
        """Yield the rows from a number on, block by block: where they are, and the block."""
        for start in range(first, len(self.rows), _ROWS_AT_ONCE):
            at = slice(start, min(start + _ROWS_AT_ONCE, len(self.rows)))
            rows = (self.rows[at].to(self.device) - self.centre).double()
            yield at, _Block(rows, rows.square().sum(dim=1))


def _both(real: Tensor, fake: Tensor, device: torch.device) -> tuple[_Points, _Points]:
    centre = real.mean(dim=0, dtype=torch.float64).to(device)  # any point near the rows will do
    return _Points(real, centre, device), _Points(fake, centre, device)


def _compare(points: _Points, others: _Points) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield tables of squared distances, to be compared with squared radii: where the rows and columns are, the table."""
    for at, block in points.blocks():
        for at_others, other in others.blocks():
            yield at, at_others, block.squared_distances(other, slack=_ROUNDING)


def _squared_radii(points: _Points, k: int) -> Tensor:
    """Return the squared distance of each row to its k-th nearest neighbour among the others, [n]."""
    nearest = torch.full([len(points.rows), k + 1], torch.inf, dtype=torch.float64, device=points.device)
    for at, block in points.blocks():
        for at_others, other in points.blocks(first=at.start):
            distances = block.squared_distances(other)
            nearest[at] = _smallest(nearest[at], distances)
            if at != at_others:
                nearest[at_others] = _smallest(nearest[at_others], distances.T)
    return nearest[:, k]


def _smallest(smallest: Tensor, further: Tensor) -> Tensor:
    """Return the smallest values of each row of both, [n, as many as in `smallest`], in ascending order."""
    count = smallest.shape[1]
    candidates = further.topk(min(count, further.shape[1]), dim=1, largest=False).values
    return torch.cat([smallest, candidates], dim=1).topk(count, dim=1, largest=False).values
