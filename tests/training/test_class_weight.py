"""The cross-entropy over classes in D's main loss."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_runs import CPU, phase_of, without_randomness

from dnnlib.dataclass_values import ConfigError
from training.config import DatasetSpec, LossConfig, RunConfig
from training.latents import Latents
from training.phases import MicroBatch
from training.registry import create, entry
from training.schedule import Ramp, Scheduled
from training.state import TrainState

SPEC = DatasetSpec(16, 16, 3, label_dim=3)


@pytest.mark.parametrize("kind", ["stylegan2", "vit"])
def test_logits_of_each_class_are_those_of_its_label(kind: str) -> None:
    settings = {"channel_base": 128, "channel_max": 16} if kind == "stylegan2" else {"width": 64, "depth": 1}
    D = create("discriminator", kind, entry("discriminator", kind).config(**settings), SPEC).double()
    images, labels = torch.randn(3, 3, 16, 16).double(), torch.eye(3).double()
    found = D(images, labels, class_logits=True)
    assert found.shape == (3, 4)
    torch.testing.assert_close(found[:, :1], D(images, labels), rtol=0, atol=0)
    for index, label in enumerate(labels):
        torch.testing.assert_close(found[:, 1 + index : 2 + index], D(images, label.expand(3, -1)))


@pytest.mark.parametrize("kind", ["logistic", "relativistic"])
def test_the_loss_of_the_discriminator_grows_by_the_cross_entropy(tiny_config: RunConfig, kind: str) -> None:
    losses: dict[Scheduled, float] = {}
    ramp = Ramp(1.0, 0.0)
    for weight in (0.0, 0.5, ramp):
        torch.manual_seed(0)
        loss = entry("loss", kind).config(class_weight=weight, r1_gamma=0.0)
        config = without_randomness(tiny_config).changed(schedule={"burn_in_kimg": 2.0})
        state = TrainState(replace(config, loss=loss), SPEC, CPU)
        state.cur_nimg = 1000  # half-way down the ramp
        images, labels = torch.randn(4, 3, 16, 16), torch.eye(3)[[0, 1, 2, 0]]
        batch = MicroBatch(images, labels, Latents(torch.randn(4, state.G.z_dim), labels, None, 0, 0))
        losses[weight] = sum(term.item() for term in phase_of(state, "D_main").loss(batch))
        expected = F.cross_entropy(8 * state.D(images, labels, class_logits=True)[:, 1:], labels).item()
    assert losses[0.5] - losses[0.0] == pytest.approx(0.5 * expected, rel=1e-4)
    assert losses[ramp] == pytest.approx(losses[0.5], rel=1e-6)


def test_refused_settings(tiny_config: RunConfig) -> None:
    for kind in ("logistic", "relativistic"):
        with pytest.raises(ConfigError, match=r"loss\.class_weight"):
            entry("loss", kind).config(class_weight=Ramp(0.1, -1.0))
    san = replace(
        tiny_config, loss=LossConfig(class_weight=1.0), discriminator=replace(tiny_config.discriminator, san=True)
    )
    with pytest.raises(ConfigError, match=r"discriminator\.san=false"):
        san.check(SPEC)
    for spec in (DatasetSpec(16, 16, 3), replace(SPEC, labels_are_vectors=True)):
        with pytest.raises(ConfigError, match="classes, and --cond=1"):
            replace(tiny_config, loss=LossConfig(class_weight=1.0)).check(spec)
