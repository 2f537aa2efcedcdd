"""The controller that adapts the augmentation probability to the discriminator's overfitting.

Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data" (ADA), section 3.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class AdaController:
    """Probability p of each augmentation; a tensor on the device, which is never waited for."""

    def __init__(
        self,
        initial_p: float = 0.0,
        adaptive: bool = True,  # False = p is constant
        limit: float = 1.0,  # of `p_clamped`; p itself may exceed it
        device: torch.device | str = "cpu",
        reduce_sum: Callable[[Tensor], Tensor] = lambda x: x,  # sums a tensor over all ranks
    ) -> None:
        self.adaptive = adaptive
        self.limit = limit
        self.p = torch.tensor(initial_p, dtype=torch.float32, device=device)
        self._reduce_sum = reduce_sum
        self._totals = torch.zeros(2, dtype=torch.float64, device=device)  # sum of signs, count; of this rank
        self._restored = torch.zeros_like(self._totals)  # of all ranks together, from before a restart

    @property
    def p_clamped(self) -> Tensor:
        """The probability to augment with, a tensor without dimensions."""
        return self.p.clamp(max=self.limit)

    def report(self, real_logits: Tensor) -> None:
        """Add the outputs of D for real images, any shape, to the totals for the next adjustment."""
        if self.adaptive:
            signs = real_logits.detach().sign().nan_to_num(nan=0.0)  # a NaN would stay in p forever
            self._totals[0].add_(signs.sum(dtype=torch.float64))
            self._totals[1].add_(signs.numel())

    def adjust(self, batch_size: int, interval: int, target: float, speed_nimg: float) -> None:
        """Increase p if the mean sign of D(real) since the last call exceeds the target, -1..1, else decrease it.

        A collective operation, every `interval` batches of `batch_size` images over all ranks. p can move by 1 in `speed_nimg`
        images; without a report since the last call it stays.
        """
        signs, count = self._all_ranks().unbind()
        direction = (signs - target * count).sign().float()  # the sign of mean - target, and 0 without a report
        self.p = (self.p + direction * (batch_size * interval / speed_nimg)).clamp(min=0)
        self._totals.zero_()
        self._restored.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Return p and the totals of all ranks; a collective operation."""
        return {"p": self.p.clone(), "totals": self._all_ranks().clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state, the same one on every rank."""
        self.p.copy_(state["p"])
        self._restored.copy_(state["totals"])
        self._totals.zero_()

    def _all_ranks(self) -> Tensor:
        return self._reduce_sum(self._totals.clone()) + self._restored
