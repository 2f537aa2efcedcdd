"""The phases on a GPU that need not be there: on tensors without values, mixed devices and a look at a value both raise.

Such tensors have no backward pass on a GPU, so gradients are made up: this is about the forward passes and what follows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from training.config import DatasetSpec, PerformanceConfig
from training.latents import Latents
from training.losses import base, build_phases
from training.networks import discriminator, layers
from training.phases import MicroBatch
from training.state import TrainState

GPU = torch.device("cuda", 0)


def with_values(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function run on ordinary tensors."""

    def run(*arguments: Any, **settings: Any) -> Any:
        with unset_fake_temporarily():
            return function(*arguments, **settings)

    return run


def moved(network: nn.Module, device: torch.device) -> nn.Module:
    """What `Module.to` does, which stumbles over tensors without values."""
    for module in network.modules():
        for name, p in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty(p.shape, dtype=p.dtype, device=device)))
        for name, b in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(b.shape, dtype=b.dtype, device=device))
    return network


def made_up_grad(outputs: Sequence[Tensor], inputs: Sequence[Tensor], **settings: Any) -> list[Tensor]:
    """Gradients of the right shapes that hang on the outputs."""
    outputs, inputs = ([x] if isinstance(x, Tensor) else x for x in (outputs, inputs))
    return [torch.empty_like(x) + sum(y.sum() for y in outputs) for x in inputs]


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(Tensor, "pin_memory", lambda x: x)
    monkeypatch.setattr(nn.Module, "to", moved)
    monkeypatch.setattr(torch.autograd, "grad", made_up_grad)
    monkeypatch.setattr(torch, "Generator", lambda device: torch.default_generator)  # the real one asks the driver
    for module, name in ((layers, "setup_filter"), (discriminator, "setup_filter"), (base, "AugmentPipe")):
        monkeypatch.setattr(module, name, with_values(getattr(module, name)))
    with FakeTensorMode():
        yield


@pytest.mark.usefixtures("fake_gpu")
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # in copying a network
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_nothing_mixes_devices_or_waits(tiny_config, monkeypatch, precision) -> None:
    config = replace(tiny_config, performance=PerformanceConfig(precision, compile="0"))
    state = TrainState(config, DatasetSpec(16, 16, 3, label_dim=3), GPU)

    def backward(loss: Tensor) -> None:
        assert loss.device == GPU and loss.shape == ()
        for p in [*state.G.parameters(), *state.D.parameters()]:
            p.grad = torch.empty_like(p) if p.requires_grad else None

    monkeypatch.setattr(Tensor, "backward", backward)
    z, c, images = (torch.empty(4, *size, device=GPU) for size in ((8,), (3,), (3, 16, 16)))
    batches = [MicroBatch(images, c, Latents(z, c, z, mix_from=2, seed=0))] * 2
    for phase in build_phases(state):
        phase.step(batches)
    assert state.g.scaler.is_enabled() == state.d.scaler.is_enabled() == (precision == "fp16")
    state.finite.end_step()
    state.ada.adjust(8, 4, target=0.6, speed_nimg=1000.0)
    state.stats.sum_up()
    assert {sums.device for sums in state.stats.moments.values()} == {GPU}
    with pytest.raises(Exception, match="_local_scalar_dense"):
        assert state.finite.total_bad
