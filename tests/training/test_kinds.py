"""A generator, a discriminator and a loss from this file alone: trained, saved, resumed, generated from and projected."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
from tiny_runs import train_in_parts
from torch import Tensor, nn

from dnnlib.dataclass_values import ConfigError, override
from sampling.embeddings import discriminator_embedding
from sampling.projection.projector import Projector, Search
from torch_utils.images import to_uint8
from training.checkpoint.snapshot import load_discriminator, load_generator
from training.config import AnyDiscriminator, AnyGenerator, AnyLoss, DatasetSpec, RunConfig
from training.losses.base import AdversarialLoss
from training.networks.base import StyleGenerator
from training.networks.layers import EqualizedLinear
from training.phases import MicroBatch, Phase
from training.registry import register


@dataclass(frozen=True)
class ToyGeneratorConfig(AnyGenerator):
    kind: str = field(default="toy", kw_only=True)
    hidden: int = 16


class ToySynthesis(nn.Module):
    """Two styles: one makes features, the other the image."""

    def __init__(self, config: ToyGeneratorConfig, spec: DatasetSpec) -> None:
        super().__init__()
        self.num_ws, self.shape = 2, (spec.channels, spec.height, spec.width)
        self.first = EqualizedLinear(config.w_dim, config.hidden)
        self.second = EqualizedLinear(config.w_dim, config.hidden)
        self.image = EqualizedLinear(config.hidden, spec.channels * spec.height * spec.width)

    def forward(self, ws: Tensor, noise_mode: str = "random", dtype: torch.dtype | None = None) -> Tensor:
        features = self.first(ws[:, 0]).tanh() + self.second(ws[:, 1]).tanh()
        return self.image(features).unflatten(1, self.shape)


class ToyGenerator(StyleGenerator):
    def __init__(self, config: ToyGeneratorConfig, spec: DatasetSpec) -> None:
        super().__init__(config, spec)
        self.synthesis = ToySynthesis(config, spec)

    def style_layers(self) -> list[list[EqualizedLinear]]:
        return [[self.synthesis.first], [self.synthesis.second]]


@dataclass(frozen=True)
class ToyDiscriminatorConfig(AnyDiscriminator):
    kind: str = field(default="toy", kw_only=True)
    hidden: int = 8


class ToyDiscriminator(nn.Module):
    def __init__(self, config: ToyDiscriminatorConfig, spec: DatasetSpec) -> None:
        super().__init__()
        self.conv = nn.Conv2d(spec.channels, config.hidden, 4, stride=4)
        self.out = nn.Linear(config.hidden, 1)

    def forward(self, image: Tensor, c: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
        return self.out(self.features(image)[0].tanh().mean(dim=(2, 3)))

    def features(self, image: Tensor) -> list[Tensor]:
        return [self.conv(image)]

    def layers_from_image(self) -> list[nn.Module]:
        return [self.conv]


@dataclass(frozen=True)
class ToyLossConfig(AnyLoss):
    kind: str = field(default="toy", kw_only=True)
    margin: float = 1.0


class ToyLoss(AdversarialLoss):
    """The hinge loss; counts its steps in a buffer."""

    def phases(self) -> list[Phase]:
        self.state.loss_buffers.setdefault("steps", torch.zeros([]))
        return [self.main_phase("G_main", 0, loss=self.g_main), self.main_phase("D_main", 1, loss=self.d_main)]

    def g_main(self, batch: MicroBatch) -> Iterator[Tensor]:
        self.state.loss_buffers["steps"] += 1
        yield -self.run_discriminator(self.generate(batch.latents), batch.latents.c).mean()

    def d_main(self, batch: MicroBatch) -> Iterator[Tensor]:
        margin = self.state.config.loss.margin  # type: ignore[attr-defined]
        with torch.no_grad():
            fakes = self.generate(batch.latents)
        yield (margin + self.run_discriminator(fakes, batch.latents.c)).relu().mean()
        logits = self.run_discriminator(batch.images, batch.labels)
        self.report_logits("real", logits)
        yield (margin - logits).relu().mean()


register("generator", ToyGeneratorConfig, ToyGenerator)
register("discriminator", ToyDiscriminatorConfig, ToyDiscriminator)
register("loss", ToyLossConfig, ToyLoss)


@pytest.mark.parametrize("groups", [["generator"], ["discriminator"], ["loss"], ["generator", "discriminator", "loss"]])
def test_a_new_kind_trains_resumes_and_is_used(tiny_config, tiny_data, tmp_path, groups) -> None:
    config = tiny_config
    if "loss" not in groups and "generator" in groups:
        config = config.changed(loss={"mixing_prob": 0.0})
    for group in groups:
        config = override(config, f"{group}.kind", "toy")
    _, resumed = train_in_parts(config, tiny_data, tmp_path, 0.016)
    if "loss" in groups:
        assert resumed.state.loss_buffers["steps"] == 2
    snapshot = tmp_path / "whole" / "network-snapshot-000000.pkl"
    G, D = load_generator(snapshot), load_discriminator(snapshot)
    images = G(torch.randn(2, G.z_dim), noise_mode="const")
    assert images.shape == (2, 3, 16, 16) and D(images).shape == (2, 1)
    assert [feature.shape[0] for feature in D.features(images)] == [2] * len(D.features(images))
    assert len(G.style_layers()) == G.num_ws
    projector = Projector(G, discriminator_embedding(D), Search(starts=1, candidates=4, num_steps=2))
    target = to_uint8(images)[0]
    assert projector.project(target, projector.starts([target])[0]).ws.shape == (G.num_ws, G.w_dim)


def test_kinds_are_chosen_by_name_and_files_without_one_have_the_default() -> None:
    config = override(override(RunConfig(), "generator.kind", "toy"), "generator.hidden", "5")
    values = config.to_dict()
    assert values["generator"]["kind"] == "toy" and RunConfig.from_dict(values) == config
    assert config.generator.z_dim == RunConfig().generator.z_dim
    older = RunConfig().to_dict()
    for group in ("generator", "discriminator", "loss"):
        del older[group]["kind"]
    assert RunConfig.from_dict(older) == RunConfig()
    with pytest.raises(ConfigError, match=r"generator.kind must be one of .*styleformer, toy; got 'none'"):
        override(config, "generator.kind", "none")
