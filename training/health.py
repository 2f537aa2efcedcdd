"""Counts steps whose losses or gradients were not finite, on the device, without waiting for it."""

import torch
from torch import Tensor


class Health:
    """How many steps were bad so far, and how many of them without a good one since."""

    def __init__(self, device: torch.device) -> None:
        self._is_bad = torch.zeros([], dtype=torch.int64, device=device)  # in the present step
        self._streak = torch.zeros([], dtype=torch.int64, device=device)
        self._total = torch.zeros([], dtype=torch.int64, device=device)

    def report(self, is_finite: Tensor) -> None:
        """Note whether loss and gradients of a phase were finite: a bool tensor without dimensions, alike on all ranks."""
        self._is_bad |= ~is_finite

    def end_step(self) -> None:
        """Count the step."""
        self._total += self._is_bad
        self._streak = (self._streak + 1) * self._is_bad
        self._is_bad.zero_()

    @property
    def streak(self) -> int:
        """Bad steps since the last good one; waits for the device."""
        return int(self._streak)

    @property
    def total(self) -> int:
        """Bad steps since the start of the run; waits for the device."""
        return int(self._total)

    def state_dict(self) -> dict[str, int]:
        """Plain numbers for `load_state_dict`."""
        return {"streak": self.streak, "total": self.total}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from `state_dict`."""
        self._is_bad.zero_()
        self._streak.fill_(state["streak"])
        self._total.fill_(state["total"])
