"""The running average of the generator's weights."""

import torch
from torch import nn


def ema_beta(batch: int, cur_nimg: int, half_life_nimg: float, rampup: float | None) -> float:
    """Share of the old average that stays after a batch: 0.5 after `half_life_nimg` images.

    The half-life is at most the share `rampup` of `cur_nimg`, the images seen before this batch; None = no ramp-up.
    """
    if rampup is not None:
        half_life_nimg = min(half_life_nimg, cur_nimg * rampup)
    return 0.5 ** (batch / max(half_life_nimg, 1e-8))


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, beta: float) -> None:
    """Move the average's parameters towards the network's by 1 - beta, and copy its buffers."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - beta)
    torch._foreach_copy_(list(average.buffers()), list(network.buffers()))
