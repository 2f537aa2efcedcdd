"""The controller that moves the augmentation probability with the discriminator's overfitting.

Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data" (ADA), section 3.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _one_rank(totals: Tensor) -> Tensor:
    return totals


class AdaController:
    """Probability p of each augmentation; lives on the device and never waits for it."""

    def __init__(
        self,
        initial_p: float = 0.0,
        adaptive: bool = True,
        limit: float = 1.0,
        device: torch.device | str = "cpu",
        reduce_sum: Callable[[Tensor], Tensor] = _one_rank,
    ) -> None:
        """Start at a probability; ValueError if it or the limit lies outside 0..1.

        Args:
            initial_p: p at the start of the run.
            adaptive: False = p stays as it is.
            limit: Upper bound of what `p_clamped` gives; p itself goes on counting beyond.
            device: Where p and the totals live.
            reduce_sum: Returns a tensor summed over all ranks. The default is that of a single rank.
        """
        for name, value in (("initial_p", initial_p), ("limit", limit)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value} must lie in 0..1")
        self.adaptive = adaptive
        self.limit = limit
        self.p = torch.tensor(initial_p, dtype=torch.float32, device=device)
        self._reduce_sum = reduce_sum
        self._totals = torch.zeros(2, dtype=torch.float64, device=device)  # sum of signs, count; of this rank
        self._restored = torch.zeros_like(self._totals)  # of all ranks together, from before a restart

    @property
    def p_clamped(self) -> Tensor:
        """The probability to augment with, p up to the limit, a tensor without dimensions."""
        return self.p.clamp(max=self.limit)

    def report(self, real_logits: Tensor) -> None:
        """Add what D said about real images, any shape, to the totals for the next adjustment."""
        if self.adaptive:
            signs = real_logits.detach().sign().nan_to_num(nan=0.0)  # one NaN would stay in p for good
            self._totals[0].add_(signs.sum(dtype=torch.float64))
            self._totals[1].add_(signs.numel())

    def adjust(self, batch_size: int, interval: int, target: float, speed_nimg: float) -> None:
        """Move p up if the mean sign of D's outputs on real images exceeds the target, else down; start a new mean.

        With several ranks all of them have to call this together. Without a report since the last call p stays.

        Args:
            batch_size: Images of a batch over all ranks.
            interval: Batches from one call to the next.
            target: Mean sign to hold, -1..1.
            speed_nimg: Images until p has moved by 1, if always in one direction.
        """
        if not speed_nimg > 0:
            raise ValueError(f"speed_nimg={speed_nimg} must be above 0")
        if not self.adaptive:
            return
        signs, count = self._all_ranks().unbind()
        direction = (signs - target * count).sign().float()  # the sign of mean - target, and 0 without a report
        self.p = (self.p + direction * (batch_size * interval / speed_nimg)).clamp(min=0)
        self._totals.zero_()
        self._restored.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Return p and the totals of all ranks; with several ranks all of them have to call this together."""
        return {"p": self.p.clone(), "totals": self._all_ranks().clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state, on every rank the same one."""
        self.p.copy_(state["p"])
        self._restored.copy_(state["totals"])
        self._totals.zero_()

    def _all_ranks(self) -> Tensor:
        return self._reduce_sum(self._totals.clone()) + self._restored
