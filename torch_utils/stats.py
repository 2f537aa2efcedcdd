"""Named scalars averaged over steps and ranks, kept on the device until they are collected."""

import itertools
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_utils.distributed import all_reduce_sum, rank

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
        totals = self.state_dict()
        self.moments.clear()
        return {name: to_scalar(moments.tolist()) for name, moments in totals.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moments over all ranks since the last `collect`; call it on every rank."""
        self.sum_up()
        names = sorted(self.moments)
        if not names:
            return {}
        table = all_reduce_sum(torch.stack([self.moments[name] for name in names])).cpu()
        return dict(zip(names, table.unbind(), strict=True))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.pending.clear()
        self.moments = {name: moments.to(self.device) * (rank() == 0) for name, moments in state.items()}


def to_scalar(moments: list[float]) -> Scalar:
    """Return the scalar of [count, sum, sum of squares]."""
    num, total, squares = moments
    mean = total / num
    return Scalar(int(num), mean, max(squares / num - mean * mean, 0.0) ** 0.5)
