import copy

import pytest
import torch
from torch import nn

from training.ema import ema_beta, update_ema


def test_ramp_up_shortens_the_half_life_of_a_young_run() -> None:
    assert ema_beta(32, 10**9, 10_000, rampup=None) ** (10_000 / 32) == pytest.approx(0.5)
    assert ema_beta(32, 0, 10_000, rampup=0.05) == 0.0
    assert ema_beta(32, 64_000, 10_000, rampup=0.05) == pytest.approx(0.5 ** (32 / 3200))
    assert ema_beta(32, 10**9, 10_000, rampup=0.05) == ema_beta(32, 10**9, 10_000, rampup=None)


def test_parameters_are_averaged_and_buffers_copied() -> None:
    network = nn.BatchNorm1d(3)
    average = copy.deepcopy(network)
    with torch.no_grad():
        network.weight.fill_(3.0)
        network.running_mean.fill_(7.0)
    update_ema(average, network, beta=0.75)
    torch.testing.assert_close(average.weight, torch.full([3], 1.5))
    assert torch.equal(average.running_mean, network.running_mean)
