"""The relativistic loss against explicit formulas, its approximate penalties against exact ones, resume and processes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import CPU, gradients, micro_batch, train, train_in_parts, without_randomness
from torch import Tensor

from dnnlib.dataclass_values import ConfigError, override
from torch_utils import distributed
from torch_utils.distributed import spawn
from training.config import DatasetSpec, RunConfig
from training.losses import build_phases
from training.losses.relativistic import RelativisticConfig, RelativisticLoss
from training.presets import preset
from training.state import TrainState

SPEC = DatasetSpec(16, 16, 3)
EPS = 0.01


def configured(config: RunConfig, **settings: Any) -> RunConfig:
    """The configuration with the relativistic loss and these settings of it."""
    config = override(config, "loss.kind", "relativistic")
    return config.changed(loss={"r1_gamma": 3.0, "mixing_prob": 0.0} | settings)


def squared_gradients(D: Any, images: Tensor) -> Tensor:
    images = images.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(D(images).sum(), images, create_graph=True)
    return (gradient**2).sum(dim=(1, 2, 3))


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("penalty", ["exact", "approx"])
def test_value_and_gradients_are_those_of_the_formulas(tiny_config: RunConfig, penalty: str, share: float) -> None:
    config = configured(without_randomness(tiny_config), penalty=penalty, penalty_share=share, penalty_interval=2)
    state = TrainState(config, SPEC, CPU)
    state.G.double(), state.D.double()
    loss, batch = RelativisticLoss(state), micro_batch(0, dtype=torch.float64)
    fakes = state.G(batch.latents.z, noise_mode="none").detach()
    state.D.requires_grad_(True)
    value = sum(loss.d_main(batch))
    logits_real, logits_fake = state.D(batch.images), state.D(fakes)
    expected = torch.log1p(torch.exp(-(logits_real - logits_fake))).mean()
    drawn, count = torch.Generator().manual_seed(7), round(4 * share)
    for images in (batch.images[:count], fakes[:count]):
        noise = torch.randn(images.shape, generator=drawn, dtype=torch.float64)
        approx = (state.D(images + EPS * noise) - state.D(images)).flatten() ** 2 / EPS**2
        found = approx if penalty == "approx" else squared_gradients(state.D, images)
        expected = expected + 3.0 / 2 * found.mean() * 2
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradients(value, state.D), gradients(expected, state.D), rtol=1e-7, atol=1e-12)

    state.D.requires_grad_(False)
    value = sum(loss.g_main(batch))
    logits_fake = state.D(state.G(batch.latents.z, noise_mode="none"))
    expected = torch.log1p(torch.exp(-(logits_fake - state.D(batch.images)))).mean()
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradients(value, state.G), gradients(expected, state.G), rtol=1e-7, atol=1e-12)


def test_a_pair_has_one_class(tiny_config: RunConfig) -> None:
    spec = DatasetSpec(16, 16, 3, 3)
    state = TrainState(configured(without_randomness(tiny_config), penalty="exact"), spec, CPU)
    state.D.requires_grad_(True)
    loss, batch = RelativisticLoss(state), micro_batch(0)
    labels, others = torch.eye(3)[[0, 1, 2, 1]], torch.eye(3)[[1, 2, 0, 0]]
    batch = replace(batch, labels=labels, latents=replace(batch.latents, c=others))
    fakes = state.G(batch.latents.z, labels, noise_mode="none")
    expected = torch.log1p(torch.exp(-(state.D(fakes, labels) - state.D(batch.images, labels)))).mean()
    torch.testing.assert_close(sum(loss.g_main(batch)), expected, rtol=1e-5, atol=1e-6)
    expected = torch.log1p(torch.exp(-(state.D(batch.images, labels) - state.D(fakes, labels)))).mean()
    torch.testing.assert_close(next(iter(loss.d_main(batch))), expected, rtol=1e-5, atol=1e-6)


def test_settings_of_another_loss_are_not_taken_over() -> None:
    """Nor is ADA, which follows the sign of logits."""
    config = override(preset("auto", DatasetSpec(64, 64, 3)), "loss.kind", "relativistic")
    assert config.loss == RelativisticConfig()
    with pytest.raises(ConfigError, match=r"--aug=ada follows .* use --aug=noaug, or --aug=fixed with --p"):
        config.check(DatasetSpec(64, 64, 3))
    config.changed(augment={"mode": "noaug"}).check(DatasetSpec(64, 64, 3))


def test_approx_agrees_with_exact_in_expectation(tiny_config: RunConfig) -> None:
    """10,000 directions, 2,500 for each of four images."""
    state = TrainState(configured(without_randomness(tiny_config)), SPEC, CPU)
    loss, images = RelativisticLoss(state), micro_batch(0).images
    direction = torch.Generator().manual_seed(1)
    exact = squared_gradients(state.D, images).mean().item()
    many, labels = images.repeat(125, 1, 1, 1), torch.zeros(500, 0)
    with torch.no_grad():
        approx = torch.stack([loss.differences(many, labels, direction)[1].mean() for _ in range(20)]).mean()
    assert approx == pytest.approx(exact, rel=0.02)


def test_penalties_come_at_their_interval_and_the_ratio_now_and_then(tiny_config: RunConfig) -> None:
    state = TrainState(configured(tiny_config, penalty_interval=2), SPEC, CPU)
    (_, d_main), seen = build_phases(state), {}
    for index in (0, 1, 2, 64):
        state.cur_nimg = index * state.config.schedule.batch
        d_main.step([micro_batch(0)])
        seen[index] = {name for name in state.stats.collect() if "/r" in name and "Loss/s" not in name}
    penalties = {"Loss/r1_penalty", "Loss/r2_penalty"}
    ratio = {"Loss/r1_approx_to_exact"}
    assert seen == {0: penalties | ratio, 1: set(), 2: penalties, 64: penalties | ratio}


def test_the_penalty_is_of_the_image_before_its_augmentation(tiny_config: RunConfig) -> None:
    """Were the copies augmented by different draws, the difference would be that of two pictures."""
    config = tiny_config.changed(augment={"mode": "fixed", "p": 1.0})
    state = TrainState(configured(config), SPEC, CPU)
    loss, batch = RelativisticLoss(state), micro_batch(0)
    with torch.no_grad():
        penalty = loss.differences(batch.images, batch.labels, torch.Generator().manual_seed(0))[1]
    assert penalty.max() < 50 * squared_gradients(state.D, batch.images).mean()


@pytest.mark.parametrize("penalty", ["exact", "approx"])
def test_a_resumed_run_equals_the_uninterrupted_one(tiny_config, tiny_data, tmp_path, penalty) -> None:
    config = configured(tiny_config, penalty=penalty, penalty_interval=2, mixing_prob=0.5)
    train_in_parts(config, tiny_data, tmp_path)


def train_in_process(task: tuple[RunConfig, Path, Path]) -> None:
    distributed.init(CPU)
    train(*task)
    distributed.shutdown()


def test_two_processes_equal_one(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    config = configured(without_randomness(tiny_config))
    config = config.changed(schedule={"kimg": 0.016, "batch_gpu": 4})
    found = []
    for run in (train_in_process, lambda task: spawn(train_in_process, 2, task)):
        run_dir = tmp_path / str(len(found))
        run((config, tiny_data, run_dir))
        tensors = torch.load(run_dir / "network-snapshot-000000.pkl", weights_only=True)
        found.append({"G": tensors["G"], "D": tensors["D"]})
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_phase_runs_in_the_chosen_precision(tiny_config: RunConfig, precision: str) -> None:
    config = configured(tiny_config)
    config = config.changed(performance={"precision": precision})
    state = TrainState(config, SPEC, CPU)
    for phase in build_phases(state):
        before = [p.clone() for p in phase.trained.parameters]
        phase.step([micro_batch(0)])
        assert any(not torch.equal(a, b) for a, b in zip(before, phase.trained.parameters, strict=True))
    state.finite.end_step()
    assert state.finite.total_bad == 0


def test_settings_that_cannot_be_used_are_named(tiny_config: RunConfig) -> None:
    config = override(tiny_config, "loss.kind", "relativistic")
    for name, text in (("penalty", "none"), ("penalty_interval", "0"), ("penalty_share", "1.5"), ("penalty_eps", "0")):
        with pytest.raises(ConfigError, match=f"loss.{name} must .* got .?{text}"):
            override(config, f"loss.{name}", text)
    with pytest.raises(ConfigError, match=r"the penalties see 6 of the 8 .* group 4: change --set loss.penalty_share"):
        override(config, "loss.penalty_share", "0.75").check(SPEC)
    assert RunConfig.from_dict(config.to_dict()) == config
    assert config.loss.training_flops(1.0, 1.0) == (3 + 2) + (1 + 6) + 1 + 6
