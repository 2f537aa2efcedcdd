"""Named scalars averaged over steps and ranks, kept on the device until somebody looks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from torch_utils.distributed import all_reduce_sum, rank


@dataclass(frozen=True)
class Scalar:
    """Count, mean and standard deviation of the values reported under one name."""

    num: int
    mean: float
    std: float


class Stats:
    """Collects values by name; reporting never waits for the device."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.moments: dict[str, Tensor] = {}  # name -> [count, sum, sum of squares], float64

    def report(self, name: str, values: Tensor | float) -> None:
        """Add all elements of `values` to the average called `name`."""
        x = torch.as_tensor(values, device=self.device).detach().double().flatten()
        moments = torch.stack([torch.full_like(x[0], x.numel()), x.sum(), x.square().sum()])
        self.moments[name] = self.moments[name] + moments if name in self.moments else moments

    def collect(self) -> dict[str, Scalar]:
        """The averages over everything reported since the last call, over all ranks; call it on every rank."""
        totals = self.state_dict()
        self.moments.clear()
        return {name: to_scalar(moments.tolist()) for name, moments in totals.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """The moments of everything reported since the last `collect`, over all ranks; call it on every rank."""
        names = sorted(self.moments)
        if not names:
            return {}
        table = all_reduce_sum(torch.stack([self.moments[name] for name in names])).cpu()
        return dict(zip(names, table.unbind(), strict=True))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict`; the first rank carries what all had reported."""
        self.moments = {name: moments.to(self.device) * (rank() == 0) for name, moments in state.items()}


def to_scalar(moments: list[float]) -> Scalar:
    """The average of [count, sum, sum of squares]."""
    num, total, squares = moments
    mean = total / num
    return Scalar(int(num), mean, max(squares / num - mean * mean, 0.0) ** 0.5)
