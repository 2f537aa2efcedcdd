import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import finalize

import pytest
import torch
from torch import Tensor

from torch_utils import distributed
from torch_utils.distributed import average_gradients, spawn
from training.config import DatasetSpec, PerformanceConfig, RunConfig
from training.latents import Latents
from training.losses import build_phases, logistic
from training.losses.logistic import LogisticLoss
from training.phases import MicroBatch
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
            assert moved is (net is phase.trained.network), phase.name


def test_lazy_phases_are_due_at_their_interval(state: TrainState) -> None:
    due = {phase.name: [i for i in range(6) if phase.is_due(i)] for phase in build_phases(state)}
    assert due == {"G_main": [0, 1, 2, 3, 4, 5], "G_pl": [0, 2, 4], "D_main": [0, 1, 2, 3, 4, 5], "D_r1": [0, 2, 4]}


def test_adam_is_scaled_for_lazy_regularisation(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    loss = replace(tiny_config.loss, pl_weight=0.0, pl_interval=4, r1_interval=16)
    state = TrainState(replace(tiny_config, loss=loss), tiny_spec, CPU)
    for optimizer, ratio in ((state.g.optimizer, 4 / 5), (state.d.optimizer, 16 / 17)):
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
    ws = LogisticLoss(state).styles(latents)
    assert latents.mix_z is not None
    first, second = state.G.mapping(latents.z), state.G.mapping(latents.mix_z)
    assert torch.equal(ws, torch.cat([first[:, :2], second[:, 2:]], dim=1))


def test_path_length_bookkeeping(state: TrainState) -> None:
    """The penalty sees half the batch; the running mean moves by 1 % of the mean length."""
    losses = LogisticLoss(state)
    list(losses.g_path_length(micro_batch(state)))
    losses.update_pl_mean()
    stats = state.stats.collect()
    assert stats["Loss/path_length"].num == 2
    assert state.loss_buffers["pl_mean"].item() == pytest.approx(0.01 * stats["Loss/path_length"].mean)


def spoil_lengths(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets the first path length of each micro-batch be what is given."""
    factor, measure = [1.0], logistic.path_lengths

    def spoiled(*arguments: Tensor) -> Tensor:
        lengths = measure(*arguments)
        return torch.cat([lengths[:1] * factor[0], lengths[1:]])

    monkeypatch.setattr(logistic, "path_lengths", spoiled)
    return lambda value: factor.__setitem__(0, value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_path_length_that_is_not_finite_does_not_move_the_mean(
    state: TrainState, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    spoil = spoil_lengths(monkeypatch)
    phase = next(phase for phase in build_phases(state) if phase.name == "G_pl")
    means = []
    for factor in (1.0, bad, 1.0):
        spoil(factor)
        phase.step([micro_batch(state), micro_batch(state)])
        state.finite.end_step()
        means.append(state.loss_buffers["pl_mean"].item())
    assert 0 < means[0] == means[1] < means[2]
    assert state.finite.total_bad == 1 and state.finite.consecutive_bad == 0


def test_styles_that_are_not_finite_do_not_move_their_mean(state: TrainState) -> None:
    mapping = state.G.mapping_network
    phase = next(phase for phase in build_phases(state) if phase.name == "D_main")
    phase.step([micro_batch(state)])
    before, bad = mapping.w_avg.clone(), micro_batch(state)
    bad.latents.z[0, 0] = math.nan
    phase.step([bad])
    assert torch.equal(mapping.w_avg, before) and before.any()
    phase.step([micro_batch(state)])
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


def poison(state: TrainState, name: str) -> None:
    bad = torch.tensor(math.nan)
    places: dict[str, Callable[[], Any]] = {
        "weight": lambda: state.D.epilogue.out.weight.data[0, 0].copy_(bad),
        "buffer": lambda: state.G.mapping_network.w_avg[0].copy_(bad),
        "average's buffer": lambda: state.G_ema.mapping_network.w_avg[0].copy_(bad),
        "mean path length": lambda: state.loss_buffers["pl_mean"].copy_(bad),
        "probability": lambda: state.ada.p.copy_(bad),
        "first moment": lambda: state.g.optimizer.state[state.g.parameters[-1]]["exp_avg"].view(-1)[0].copy_(bad),
        "second moment": lambda: state.d.optimizer.state[state.d.parameters[0]]["exp_avg_sq"].view(-1)[0].copy_(bad),
    }
    places[name]()


@pytest.mark.parametrize(
    "name",
    [
        "weight", "buffer", "average's buffer", "mean path length", "probability", "first moment", "second moment",
    ],
)  # fmt: skip
def test_a_state_is_good_only_where_all_that_is_saved_is_finite(state: TrainState, name: str) -> None:
    for phase in build_phases(state):
        phase.step([micro_batch(state)])
    state.finite.end_step()
    assert state.all_finite()
    poison(state, name)
    assert not state.all_finite()


def test_a_mean_path_length_that_an_older_version_saved_as_nan_begins_anew(state: TrainState) -> None:
    values = state.state_dict()
    state.load_state_dict(
        {k: v for k, v in values.items() if k != "loss_buffers"} | {"pl_mean": torch.tensor(math.nan)}
    )
    assert state.loss_buffers["pl_mean"] == 0


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


def stored_bytes(state: TrainState, run: Callable[[], None]) -> int:
    """The most bytes that backward passes wait for at one time, the networks' own left out; a storage counts once."""
    own = {t.untyped_storage().data_ptr() for net in (state.G, state.D) for t in net.state_dict().values()}
    holders: dict[int, int] = {}
    held, most = 0, 0

    class Packed:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    def drop(key: int, size: int) -> None:
        nonlocal held
        holders[key] -= 1
        held -= 0 if holders[key] else size

    def pack(tensor: Tensor) -> Packed:
        nonlocal held, most
        packed, storage = Packed(tensor), tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if key not in own:
            holders[key] = holders.get(key, 0) + 1
            held += size if holders[key] == 1 else 0
            most = max(most, held)
            finalize(packed, drop, key, size)
        return packed

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed.tensor):
        run()
    return most


def test_the_discriminator_differentiates_fakes_and_reals_one_after_the_other(state: TrainState) -> None:
    """Half of what is stored, and the gradients of the sum."""
    losses, batch, found = LogisticLoss(state), micro_batch(state), []
    state.D.requires_grad_(True)

    def jointly() -> None:
        torch.stack(list(losses.d_main(batch))).sum().backward()

    def in_turn() -> None:
        next(phase for phase in build_phases(state) if phase.name == "D_main").accumulate([batch])

    for run in (jointly, in_turn):
        torch.manual_seed(0)
        state.D.zero_grad()
        size = stored_bytes(state, run)
        found.append((size, [p.grad for p in state.D.parameters() if p.grad is not None]))
    (size_jointly, expected), (size_in_turn, grads) = found
    assert 0.4 * size_jointly < size_in_turn < 0.6 * size_jointly
    for grad, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-5, atol=1e-7)


def test_the_reported_loss_is_that_of_both_kinds_for_each_image(state: TrainState) -> None:
    list(LogisticLoss(state).d_main(micro_batch(state)))
    stats = state.stats.collect()
    assert stats["Loss/D/loss"].num == 4
    assert stats["Loss/D/loss"].mean == pytest.approx(2 * math.log(2), rel=0.1)  # it knows nothing yet


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
            gradients.append({n: p.grad for n, p in phase.trained.network.named_parameters() if p.grad is not None})
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
