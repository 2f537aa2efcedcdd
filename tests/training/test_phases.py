from dataclasses import replace

import pytest
import torch

from training.config import DatasetSpec, PerformanceConfig, RunConfig
from training.latents import Latents
from training.phases import Losses, MicroBatch, build_phases
from training.state import TrainState

CPU = torch.device("cpu")


def micro_batch(state: TrainState, mix: bool = False) -> MicroBatch:
    z, c = torch.randn(4, 8), torch.zeros(4, 0)
    return MicroBatch(torch.randn(4, 3, 16, 16), c, Latents(z, c, torch.randn(4, 8) if mix else None, 2, 0))


@pytest.fixture
def state(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> TrainState:
    return TrainState(tiny_config, tiny_spec, CPU)


def test_only_the_phases_a_config_needs(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    def names(config: RunConfig) -> list[str]:
        return [phase.name for phase in build_phases(TrainState(config, tiny_spec, CPU))]

    assert names(tiny_config) == ["G_main", "G_pl", "D_main", "D_r1"]
    plain = replace(tiny_config, loss=replace(tiny_config.loss, pl_weight=0.0, r1_gamma=0.0))
    assert names(plain) == ["G_main", "D_main"]


def test_a_phase_moves_its_own_network_only(state: TrainState) -> None:
    for phase in build_phases(state):
        before = {name: p.clone() for net in (state.G, state.D) for name, p in net.named_parameters()}
        phase.step([micro_batch(state)])
        for net in (state.G, state.D):
            moved = any(not torch.equal(before[name], p) for name, p in net.named_parameters())
            assert moved is (net is phase.network), phase.name


def test_lazy_phases_are_due_at_their_interval(state: TrainState) -> None:
    due = {phase.name: [i for i in range(6) if phase.is_due(i)] for phase in build_phases(state)}
    assert due == {"G_main": [0, 1, 2, 3, 4, 5], "G_pl": [0, 2, 4], "D_main": [0, 1, 2, 3, 4, 5], "D_r1": [0, 2, 4]}


def test_adam_is_scaled_for_lazy_regularisation(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    loss = replace(tiny_config.loss, pl_weight=0.0, pl_interval=4, r1_interval=16)
    state = TrainState(replace(tiny_config, loss=loss), tiny_spec, CPU)
    for optimizer, ratio in ((state.g_optimizer, 4 / 5), (state.d_optimizer, 16 / 17)):
        (group,) = optimizer.param_groups
        assert group["lr"] == pytest.approx(0.0025 * ratio)
        assert group["betas"] == (0.0, pytest.approx(0.99**ratio))


def test_running_mean_of_w_moves_once_a_phase_and_not_by_mixed_latents(state: TrainState) -> None:
    batches = [micro_batch(state, mix=True), micro_batch(state, mix=True)]
    mapping = state.G.mapping_network
    with torch.no_grad():
        w = torch.cat([state.G_ema.mapping_network(batch.latents.z) for batch in batches])
    phase = next(phase for phase in build_phases(state) if phase.name == "D_main")
    phase.step(batches)
    torch.testing.assert_close(mapping.w_avg, 0.005 * w.mean(dim=0))


def test_mixed_styles_come_from_the_second_latents(state: TrainState) -> None:
    latents = micro_batch(state, mix=True).latents
    ws = Losses(state).styles(latents)
    assert latents.mix_z is not None
    first, second = state.G.mapping(latents.z), state.G.mapping(latents.mix_z)
    assert torch.equal(ws, torch.cat([first[:, :2], second[:, 2:]], dim=1))


def test_path_length_bookkeeping(state: TrainState) -> None:
    """The penalty sees half the batch; the running mean moves by 1 % of the mean length."""
    losses = Losses(state)
    losses.g_path_length(micro_batch(state))
    losses.update_pl_mean()
    stats = state.stats.collect()
    assert stats["Loss/path_length"].num == 2
    assert state.pl_mean.item() == pytest.approx(0.01 * stats["Loss/path_length"].mean)


def test_non_finite_gradients_do_not_reach_the_weights(state: TrainState) -> None:
    phase = next(phase for phase in build_phases(state) if phase.name == "D_main")
    batch = micro_batch(state)
    batch.images[0, 0, 0, 0] = float("nan")
    phase.step([batch])
    assert all(p.isfinite().all() for p in state.D.parameters())


def test_steps_that_overflow_are_left_out_in_half_precision(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    state = TrainState(replace(tiny_config, performance=PerformanceConfig("fp16")), tiny_spec, CPU)
    phase = next(phase for phase in build_phases(state) if phase.name == "D_main")
    good, bad = micro_batch(state), micro_batch(state)
    bad.images[0, 0, 0, 0] = float("inf")

    def everything() -> list[torch.Tensor]:
        moments = [t.clone() for values in state.d_optimizer.state.values() for t in values.values()]
        return [*(p.detach().clone() for p in state.d_parameters), *moments]

    phase.step([good])
    before = everything()
    phase.step([bad])
    assert all(torch.equal(a, b) for a, b in zip(before, everything(), strict=True))
    state.health.end_step()
    assert state.health.streak == 1
    phase.step([good])
    assert not any(torch.equal(a, b) for a, b in zip(before, everything(), strict=True) if a.any())


def test_accumulation_equals_one_pass(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    """Without noise, augmentation and minibatch-std the gradients of micro-batches add up to the whole batch's."""
    config = replace(
        tiny_config,
        generator=replace(tiny_config.generator, noise=False),
        augment=replace(tiny_config.augment, mode="noaug"),
        discriminator=replace(tiny_config.discriminator, mbstd_group=1),
    )
    parts = [micro_batch(TrainState(config, tiny_spec, CPU)) for _ in range(3)]
    whole = MicroBatch(
        torch.cat([part.images for part in parts]),
        torch.zeros(12, 0),
        Latents(torch.cat([part.latents.z for part in parts]), torch.zeros(12, 0), None, 2, 0),
    )
    for name in ("G_main", "D_main", "D_r1"):
        gradients = []
        for batches in ([whole], parts):
            state = TrainState(config, tiny_spec, CPU)
            phase = next(phase for phase in build_phases(state) if phase.name == name)
            phase.step(batches)
            gradients.append({n: p.grad for n, p in phase.network.named_parameters() if p.grad is not None})
        assert gradients[0].keys() == gradients[1].keys()
        largest = max(gradient.abs().max() for gradient in gradients[0].values())
        for n, gradient in gradients[0].items():
            assert (gradients[1][n] - gradient).abs().max() < 1e-5 * largest, f"{name}: {n}"


def test_frozen_layers_compute_no_gradients(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    config = replace(tiny_config, discriminator=replace(tiny_config.discriminator, freeze_layers=2))
    state = TrainState(config, tiny_spec, CPU)
    for phase in build_phases(state):
        phase.step([micro_batch(state)])
    layers = list(state.D.layers_from_image())
    assert all(p.grad is None for layer in layers[:2] for p in layer.parameters())
    assert all(p.grad is not None for layer in layers[2:] for p in layer.parameters())
