"""Named scalars averaged over steps and ranks, kept on the device until they are collected."""

import itertools
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_utils.distributed import all_reduce_sum, gather_rows, rank, world_size

MAX_PENDING = 128  # reports, about ten steps


@dataclass(frozen=True)
class Scalar:
    """Count, mean and standard deviation of the values reported under one name."""

    num: int
    mean: float
    std: float


class Stats:
    """Collects values by name. Reporting does not wait for the device and takes one copy there.

    Many reports are summed at once. Each is summed separately and added to those of its name in the order of reporting,
    so on the CPU the sums do not depend on when that happens, to the last bit.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.pending: list[tuple[str, Tensor]] = []  # reported and not yet summed
        self.moments: dict[str, Tensor] = {}  # name -> [count, sum, sum of squares], float64

    def report(self, name: str, values: Tensor | float) -> None:
        """Add all elements of `values` to the average called `name`."""
        x = torch.as_tensor(values, device=self.device).detach()
        self.pending.append((name, x.flatten().clone()))  # a CUDA graph overwrites its results
        if len(self.pending) >= MAX_PENDING:
            self.sum_up()

    def sum_up(self) -> None:
        by_size: dict[tuple[int, torch.dtype], list[int]] = defaultdict(list)
        for index, (_, x) in enumerate(self.pending):
            by_size[x.numel(), x.dtype].append(index)
        moments: dict[int, Tensor] = {}
        for (count, _), indices in by_size.items():
            rows = torch.stack([self.pending[index][1] for index in indices]).double()
            columns = [torch.full_like(rows[:, 0], count), rows.sum(dim=1), rows.square().sum(dim=1)]
            moments |= zip(indices, torch.stack(columns, dim=1).unbind(), strict=True)
        by_name: dict[str, list[Tensor]] = defaultdict(list)
        for index, (name, _) in enumerate(self.pending):
            by_name[name].append(moments[index])
        self.pending.clear()
        for name in by_name.keys() - self.moments.keys():
            self.moments[name] = torch.zeros(3, dtype=torch.float64, device=self.device)
        for turn in itertools.zip_longest(*by_name.values()):  # one report of each name
            due = [(self.moments[name], more) for name, more in zip(by_name, turn, strict=True) if more is not None]
            torch._foreach_add_([sums for sums, _ in due], [more for _, more in due])

    def collect(self) -> dict[str, Scalar]:
        """Return the averages over all ranks since the last call; call it on every rank."""
        names, own = self._table()
        self.moments.clear()
        if not names:
            return {}
        return dict(zip(names, map(to_scalar, all_reduce_sum(own).tolist()), strict=True))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moments of each rank since the last `collect`, [ranks, 3], on rank 0; call it on every rank."""
        names, own = self._table()
        if not names:
            return {}
        ranks = gather_rows(own.cpu().flatten().unsqueeze(0)).unflatten(1, own.shape)
        return dict(zip(names, ranks.unbind(dim=1), strict=True))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore a state, the same one on every rank; each takes its own part again where there are as many ranks."""
        self.pending.clear()
        self.moments = {name: part_of_rank(moments.view(-1, 3)).to(self.device) for name, moments in state.items()}

    def _table(self) -> tuple[list[str], Tensor]:
        """Return the names, and the moments of this rank, [names, 3]."""
        self.sum_up()
        names = sorted(self.moments)
        moments = [self.moments[name] for name in names]
        return names, torch.stack(moments) if names else torch.zeros(0, 3, dtype=torch.float64, device=self.device)


def part_of_rank(moments: Tensor) -> Tensor:
    """Return what this rank takes of saved moments, [ranks, 3]: its own, or all on rank 0 if there were more or fewer ranks."""
    if len(moments) == world_size():
        return moments[rank()]
    return moments.sum(dim=0) * (rank() == 0)


def to_scalar(moments: list[float]) -> Scalar:
    """Return the scalar of [count, sum, sum of squares]."""
    num, total, squares = moments
    mean = total / num
    return Scalar(int(num), mean, max(squares / num - mean * mean, 0.0) ** 0.5)
