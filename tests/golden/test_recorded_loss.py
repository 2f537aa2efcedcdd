"""The phases report the published values and leave the published gradients on the weights."""

from collections.abc import Callable, Iterable

import pytest
import torch
from golden_data import load, relative_error
from recorded_networks import recorded_discriminator, recorded_generator, tensors
from test_recorded_discriminator import published_parameter
from test_recorded_generator import published_gradient
from torch import Tensor

from training.config import AugmentConfig, DatasetSpec, DiscriminatorConfig, GeneratorConfig, LossConfig, RunConfig
from training.latents import Latents
from training.losses import logistic
from training.losses.logistic import LogisticLoss
from training.phases import MicroBatch
from training.state import TrainState

# phase: the losses that make it up with their gains
PHASES = {
    "Gmain": {"g_main": 1.0},
    "Greg": {"g_path_length": 4.0},
    "Gboth": {"g_main": 1.0, "g_path_length": 1.0},
    "Dmain": {"d_main": 1.0},
    "Dreg": {"d_r1": 16.0},
    "Dboth": {"d_main": 1.0, "d_r1": 1.0},
}


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> tuple[LogisticLoss, MicroBatch, dict[str, Tensor]]:
    data = tensors(load("loss")[2])
    config = RunConfig(
        generator=GeneratorConfig(widths=(64, 32), layers=(1, 2), z_dim=24, w_dim=32),
        discriminator=DiscriminatorConfig(architecture="orig", channel_base=256, channel_max=32),
        loss=LossConfig(r1_gamma=10, pl_weight=2, mixing_prob=0),
        augment=AugmentConfig(mode="noaug"),
    )
    state = TrainState(config, DatasetSpec(16, 16, 3), torch.device("cpu"))
    state.G, state.D = recorded_generator("gen_A")[0], recorded_discriminator("disc_orig")[0]
    synthesis = state.G.synthesis.forward
    monkeypatch.setattr(state.G.synthesis, "forward", lambda ws, noise_mode: synthesis(ws, noise_mode="const"))
    measure = logistic.path_lengths
    monkeypatch.setattr(logistic, "path_lengths", lambda images, ws, _: measure(images, ws, data["pl_noise_unscaled"]))
    nothing = torch.zeros(4, 0)
    batch = MicroBatch(data["real_img"], nothing, Latents(data["z"], nothing, None, 1, 0))
    return LogisticLoss(state), batch, data


def run(losses: LogisticLoss, batch: MicroBatch, terms: dict[str, float]) -> None:
    for name, gain in terms.items():
        loss: Callable[[MicroBatch], Iterable[Tensor]] = getattr(losses, name)
        for term in loss(batch):
            (term * gain).backward()


@pytest.mark.parametrize("phase", PHASES)
def test_reported_values(recorded: tuple[LogisticLoss, MicroBatch, dict[str, Tensor]], phase: str) -> None:
    losses, batch, data = recorded
    run(losses, batch, PHASES[phase])
    stats = losses.state.stats.collect()
    keys = [key for key in data if key.startswith(f"{phase}:Loss/") and "G/reg" not in key]
    assert keys
    for key in keys:
        name = key.partition(":")[2]
        expected = {n: v for n, v in data.items() if n.partition("#")[0] == key}
        values = torch.cat([value.flatten() for value in expected.values()]).double()
        reports = 2 if phase == "Dboth" and name.endswith("/real") else 1  # both terms judge the real images
        assert stats[name].num == values.numel() * reports
        surplus = path_length_scale(losses) if "pl_penalty" in name else 1.0
        assert stats[name].mean * surplus == pytest.approx(values.mean().item(), rel=1e-4), key


def path_length_scale(losses: LogisticLoss) -> float:
    """Published penalties average over the published number of ws: every squared length is this much smaller."""
    config = losses.state.config.generator
    return losses.state.G.num_ws / (sum(config.layers) + len(config.layers))


@pytest.mark.parametrize("phase", ["Gmain", "Greg"])
def test_generator_gradients(recorded: tuple[LogisticLoss, MicroBatch, dict[str, Tensor]], phase: str) -> None:
    losses, batch, data = recorded
    losses.state.G.zero_grad()
    run(losses, batch, PHASES[phase])
    share = path_length_scale(losses) if phase == "Greg" else 1.0
    for key in [key for key in data if key.startswith(f"{phase}:grad:")]:
        gradient = published_gradient(losses.state.G, key.removeprefix(f"{phase}:grad:"))
        assert relative_error(gradient * share, data[key]) < 1e-4, key
    norm = torch.stack([p.grad.norm() for p in losses.state.G.parameters() if p.grad is not None]).norm()
    assert relative_error(norm * share, data[f"{phase}:gradnorm"]) < 1e-4


def test_path_length_mean(recorded: tuple[LogisticLoss, MicroBatch, dict[str, Tensor]]) -> None:
    losses, batch, data = recorded
    run(losses, batch, PHASES["Greg"])
    losses.update_pl_mean()
    expected = data["Greg:pl_mean_after"] / path_length_scale(losses) ** 0.5
    assert relative_error(losses.state.loss_buffers["pl_mean"], expected) < 1e-5


@pytest.mark.parametrize("phase", ["Dmain", "Dreg", "Dboth"])
def test_discriminator_gradients(recorded: tuple[LogisticLoss, MicroBatch, dict[str, Tensor]], phase: str) -> None:
    losses, batch, data = recorded
    losses.state.D.zero_grad()
    run(losses, batch, PHASES[phase])
    for key in [key for key in data if key.startswith(f"{phase}:grad:")]:
        parameter = published_parameter(losses.state.D, key.removeprefix(f"{phase}:grad:"))
        assert relative_error(parameter.grad, data[key]) < 1e-4, key
    norm = torch.stack([p.grad.norm() for p in losses.state.D.parameters() if p.grad is not None]).norm()
    assert relative_error(norm, data[f"{phase}:gradnorm"]) < 1e-4


def test_generator_phases_add_up(recorded: tuple[LogisticLoss, MicroBatch, dict[str, Tensor]]) -> None:
    """Gboth holds Greg without its gain; only that part is rescaled for the surplus ws."""
    losses, batch, data = recorded
    key = "synthesis.b8_0.enc.q_weight"
    losses.state.G.zero_grad()
    run(losses, batch, PHASES["Gboth"])
    ours = published_gradient(losses.state.G, key)
    penalty = data[f"Greg:grad:{key}"] / 4
    expected = data[f"Gboth:grad:{key}"] - penalty + penalty / path_length_scale(losses)
    assert relative_error(ours, expected) < 1e-4
