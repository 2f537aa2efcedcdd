"""Where second derivatives go through attention, PyTorch's plain formulation is asked for, whatever it would choose."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import DatasetSpec, RunConfig
from training.latents import Latents
from training.losses import build_phases
from training.phases import MicroBatch
from training.state import TrainState

CPU = torch.device("cpu")


@pytest.fixture
def fused_allowed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether fused attention was allowed, at each call of attention."""
    found, original = [], F.scaled_dot_product_attention

    def recorded(*args: Any, **kwargs: Any) -> Tensor:
        cuda = torch.backends.cuda
        found.append(cuda.flash_sdp_enabled() or cuda.mem_efficient_sdp_enabled() or cuda.cudnn_sdp_enabled())
        assert cuda.math_sdp_enabled()
        return original(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", recorded)
    return found


def test_only_path_length_forgoes_fused_attention(
    fused_allowed: list[bool], tiny_config: RunConfig, tiny_spec: DatasetSpec
) -> None:
    state = TrainState(tiny_config, tiny_spec, CPU)
    z, c = torch.randn(4, 8), torch.zeros(4, 0)
    batch = MicroBatch(torch.randn(4, 3, 16, 16), c, Latents(z, c, None, 2, 0))
    for phase in build_phases(state):
        fused_allowed.clear()
        phase.step([batch])
        assert set(fused_allowed) == {"G_main": {True}, "G_pl": {False}, "D_main": {True}, "D_r1": set()}[phase.name]
