import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_runs import CPU, micro_batch, phase_of, train_in_parts, without_randomness
from torch import Tensor

from torch_utils import distributed
from torch_utils.distributed import average_gradients, spawn
from training.config import DatasetSpec, PerformanceConfig, RunConfig
from training.latents import Latents
from training.losses import build_phases, logistic
from training.losses.logistic import LogisticLoss
from training.phases import MicroBatch
from training.state import TrainState


@pytest.fixture
def state(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> TrainState:
    return TrainState(tiny_config, tiny_spec, CPU)


def test_only_the_phases_a_config_needs(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    def names(config: RunConfig) -> list[str]:
        return [phase.name for phase in build_phases(TrainState(config, tiny_spec, CPU))]

    assert names(tiny_config) == ["G_main", "G_pl", "D_main", "D_r1"]
    plain = tiny_config.changed(loss={"pl_weight": 0.0, "r1_gamma": 0.0})
    assert names(plain) == ["G_main", "D_main"]


def test_a_phase_moves_its_own_network_only(state: TrainState) -> None:
    for phase in build_phases(state):
        before = {name: p.clone() for net in (state.G, state.D) for name, p in net.named_parameters()}
        phase.step([micro_batch()])
        for net, trained in ((state.G, state.g), (state.D, state.d)):
            moved = any(not torch.equal(before[name], p) for name, p in net.named_parameters())
            assert moved is (trained is phase.trained), phase.name


def test_adam_is_scaled_for_lazy_regularisation(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    config = tiny_config.changed(loss={"pl_weight": 0.0, "pl_interval": 4, "r1_interval": 16})
    state = TrainState(config, tiny_spec, CPU)
    for optimizer, ratio in ((state.g.optimizer, 4 / 5), (state.d.optimizer, 16 / 17)):
        (group,) = optimizer.param_groups
        assert group["lr"] == pytest.approx(0.0025 * ratio)
        assert group["betas"] == (0.0, pytest.approx(0.99**ratio))


def test_linformer_projections_learn_slowly_where_asked(tiny_config, tiny_spec, tiny_data, tmp_path) -> None:
    """Adam's first step is as long as the learning rate, which is divided by the tokens that a projection sums."""
    config = tiny_config.changed(
        generator={"linformer": True, "linformer_from_px": 16, "linformer_tokens": 8, "linformer_lr_mult": 4.0}
    )
    state = TrainState(config, tiny_spec, CPU)
    before = {name: parameter.clone() for name, parameter in state.G.named_parameters()}
    build_phases(state)[0].step([micro_batch()])
    moved = {name: (parameter - before[name]).abs().max().item() for name, parameter in state.G.named_parameters()}
    step = config.optimizer.g_lr * 2 / 3  # lazy regularisation every 2 batches
    projections = [largest for name, largest in moved.items() if name.endswith("proj_weight")]
    assert projections == [pytest.approx(step * 4 / 256, rel=1e-3)] * 2
    assert moved["synthesis.const"] == pytest.approx(step, rel=1e-3)
    train_in_parts(config, tiny_data, tmp_path)


def test_running_mean_of_w_moves_once_a_phase_and_not_by_mixed_latents(state: TrainState) -> None:
    batches = [micro_batch(mix=True), micro_batch(mix=True)]
    mapping = state.G.mapping_network
    with torch.no_grad():
        w = torch.cat([state.G_ema.mapping_network(batch.latents.z) for batch in batches])
    phase_of(state, "D_main").step(batches)
    torch.testing.assert_close(mapping.w_avg, 0.005 * w.mean(dim=0))


def test_mixed_styles_come_from_the_second_latents(state: TrainState) -> None:
    latents = micro_batch(mix=True).latents
    ws = LogisticLoss(state).styles(latents)
    assert latents.mix_z is not None
    first, second = state.G.mapping(latents.z), state.G.mapping(latents.mix_z)
    assert torch.equal(ws, torch.cat([first[:, :2], second[:, 2:]], dim=1))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_path_length_that_is_not_finite_does_not_move_the_mean(state, monkeypatch, bad) -> None:
    measure, means = logistic.path_lengths, []
    for factor in (1.0, bad, 1.0):
        monkeypatch.setattr(logistic, "path_lengths", lambda *arguments, factor=factor: measure(*arguments) * factor)
        phase_of(state, "G_pl").step([micro_batch(), micro_batch()])
        state.finite.end_step()
        means.append(state.loss_buffers["pl_mean"].item())
    assert 0 < means[0] == means[1] < means[2]
    assert state.finite.total_bad == 1 and state.finite.consecutive_bad == 0


def test_what_is_not_finite_moves_neither_the_mean_style_nor_the_weights(state: TrainState) -> None:
    mapping = state.G.mapping_network
    phase = phase_of(state, "D_main")
    phase.step([micro_batch()])
    before, bad = mapping.w_avg.clone(), micro_batch()
    bad.latents.z[0, 0] = bad.images[0, 0, 0, 0] = math.nan
    phase.step([bad])
    assert torch.equal(mapping.w_avg, before) and before.any()
    assert all(p.isfinite().all() for p in state.D.parameters())
    phase.step([micro_batch()])
    assert mapping.w_avg.isfinite().all() and not torch.equal(mapping.w_avg, before)


def agree_on_what_is_not_finite(config: RunConfig) -> None:
    distributed.init(torch.device("cpu"))
    is_bad = distributed.rank() == 1
    losses = LogisticLoss(TrainState(config, DatasetSpec(16, 16, 3), torch.device("cpu")))
    for length, expected in ((3.0, 3.0), (math.nan if is_bad else 5.0, 3.0), (4.0 + 2 * is_bad, 5.0)):
        losses.pl_means.append(torch.tensor(length))
        losses.update_pl_mean()
        assert losses.state.loss_buffers["pl_mean"] == expected
    for replaced in (True, False):
        parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
        for p in parameters:
            p.grad = torch.tensor([1.0 + 2 * is_bad, math.inf if is_bad else 0.0])
        loss, is_finite = average_gradients(parameters, torch.tensor(1.0 + 2 * is_bad), replaced)
        assert loss == 2 and not is_finite
        assert [p.grad.tolist() for p in parameters if p.grad is not None] == [[2.0, 1e5 if replaced else math.inf]] * 2
    distributed.shutdown()


def test_two_ranks_agree_on_what_is_not_finite(tiny_config: RunConfig) -> None:
    spawn(agree_on_what_is_not_finite, 2, tiny_config)


def test_steps_that_overflow_are_left_out_in_half_precision(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    state = TrainState(replace(tiny_config, performance=PerformanceConfig("fp16")), tiny_spec, CPU)
    phase = phase_of(state, "D_main")
    good, bad = micro_batch(), micro_batch()
    bad.images[0, 0, 0, 0] = float("inf")

    def everything() -> list[torch.Tensor]:
        moments = [t.clone() for values in state.d.optimizer.state.values() for t in values.values()]
        return [*(p.detach().clone() for p in state.d.parameters), *moments]

    phase.step([good])
    before = everything()
    phase.step([bad])
    assert all(torch.equal(a, b) for a, b in zip(before, everything(), strict=True))
    state.finite.end_step()
    assert state.finite.consecutive_bad == 1  # the loss itself is not finite
    phase.step([good])
    assert not any(torch.equal(a, b) for a, b in zip(before, everything(), strict=True) if a.any())


POISON: dict[str, Callable[[TrainState], Tensor]] = {
    "weight": lambda state: state.D.epilogue.out.weight.data,
    "buffer": lambda state: state.G.mapping_network.w_avg,
    "average's buffer": lambda state: state.G_ema.mapping_network.w_avg,
    "mean path length": lambda state: state.loss_buffers["pl_mean"],
    "probability": lambda state: state.ada.p,
    "first moment": lambda state: state.g.optimizer.state[state.g.parameters[-1]]["exp_avg"],
    "second moment": lambda state: state.d.optimizer.state[state.d.parameters[0]]["exp_avg_sq"],
}


@pytest.mark.parametrize("name", POISON)
def test_a_state_is_good_only_where_all_that_is_saved_is_finite(state: TrainState, name: str) -> None:
    for phase in build_phases(state):
        phase.step([micro_batch()])
    state.finite.end_step()
    assert state.all_finite()
    POISON[name](state).view(-1)[0] = math.nan
    assert not state.all_finite()


def test_terms_are_differentiated_one_after_the_other(state: TrainState) -> None:
    """So the activations of one term are stored at a time."""
    order: list[str] = []

    def terms(batch: MicroBatch) -> Iterator[Tensor]:
        for name in ("first", "second"):
            term = state.D.epilogue.out.weight.sum()
            term.register_hook(lambda gradient, name=name: order.append(f"{name} backward"))
            order.append(name)
            yield term

    replace(phase_of(state, "D_main"), loss=terms).step([micro_batch()])
    assert order == ["first", "first backward", "second", "second backward"]
    assert len(list(LogisticLoss(state).d_main(micro_batch()))) == 2  # generated and real images


def test_only_path_length_forgoes_fused_attention(state: TrainState, monkeypatch: pytest.MonkeyPatch) -> None:
    """Second derivatives need PyTorch's plain formulation."""
    allowed, attention, cuda = [], F.scaled_dot_product_attention, torch.backends.cuda

    def recorded(*args: Any, **kwargs: Any) -> Tensor:
        allowed.append(cuda.flash_sdp_enabled() or cuda.mem_efficient_sdp_enabled() or cuda.cudnn_sdp_enabled())
        assert cuda.math_sdp_enabled()
        return attention(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", recorded)
    for phase in build_phases(state):
        allowed.clear()
        phase.step([micro_batch()])
        assert set(allowed) == {"G_main": {True}, "G_pl": {False}, "D_main": {True}, "D_r1": set()}[phase.name]


def test_accumulation_equals_one_pass(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    """Without noise, augmentation and minibatch-std the gradients of micro-batches add up to the whole batch's."""
    config = without_randomness(tiny_config)
    parts = [micro_batch() for _ in range(3)]
    whole = MicroBatch(
        torch.cat([part.images for part in parts]),
        torch.zeros(12, 0),
        Latents(torch.cat([part.latents.z for part in parts]), torch.zeros(12, 0), None, 2, 0),
    )
    for name in ("G_main", "D_main", "D_r1"):
        gradients = []
        for batches in ([whole], parts):
            state = TrainState(config, tiny_spec, CPU)
            phase = phase_of(state, name)
            phase.step(batches)
            network = state.G if phase.trained is state.g else state.D
            gradients.append({n: p.grad for n, p in network.named_parameters() if p.grad is not None})
        assert gradients[0].keys() == gradients[1].keys()
        largest = max(gradient.abs().max() for gradient in gradients[0].values())
        for n, gradient in gradients[0].items():
            assert (gradients[1][n] - gradient).abs().max() < 1e-5 * largest, f"{name}: {n}"


def test_frozen_layers_compute_no_gradients(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    config = tiny_config.changed(discriminator={"freeze_layers": 2})
    state = TrainState(config, tiny_spec, CPU)
    for phase in build_phases(state):
        phase.step([micro_batch()])
    layers = list(state.D.layers_from_image())
    assert all(p.grad is None for layer in layers[:2] for p in layer.parameters())
    assert all(p.grad is not None for layer in layers[2:] for p in layer.parameters())
