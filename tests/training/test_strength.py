"""The controller of the augmentation probability: where it moves, when, and over restarts and ranks."""

import pytest
import torch
from torch import Tensor

from training.augment.ada import AdaController

ADA = {"batch_size": 32, "interval": 4, "target": 0.6, "speed_nimg": 500_000}
STEP = 32 * 4 / 500_000


def logits_with_mean_sign(mean: float, count: int = 100) -> Tensor:
    positive = round(count * (1 + mean) / 2)
    return torch.cat([torch.full([positive], 3.0), torch.full([count - positive], -0.1)])


def test_p_rises_above_the_target_and_falls_below():
    strength = AdaController(initial_p=0.5)
    strength.report(logits_with_mean_sign(0.8))
    strength.adjust(**ADA)
    assert strength.p.item() == pytest.approx(0.5 + STEP, abs=1e-7)
    for mean in (0.4, 0.4):
        strength.report(logits_with_mean_sign(mean))
        strength.adjust(**ADA)
    assert strength.p.item() == pytest.approx(0.5 - STEP, abs=1e-7)


def test_exactly_at_the_target_p_stays():
    strength = AdaController(initial_p=0.25)
    strength.report(logits_with_mean_sign(0.6))
    strength.adjust(**ADA)
    assert strength.p.item() == 0.25


def test_p_moves_by_one_in_speed_nimg_images():
    strength = AdaController()
    for _ in range(100_000 // (1000 * 4)):
        strength.report(torch.ones(5))
        strength.adjust(batch_size=1000, interval=4, target=0.6, speed_nimg=100_000)
    assert strength.p.item() == pytest.approx(1.0, abs=1e-5)


def test_the_mean_is_over_all_logits_since_the_last_adjustment():
    strength = AdaController(initial_p=0.5)
    strength.report(torch.ones(30, 1))  # mean sign 1
    strength.report(-torch.ones(10, 1))  # together 0.5, below the target
    strength.adjust(**ADA)
    assert strength.p.item() == pytest.approx(0.5 - STEP, abs=1e-7)
    strength.report(torch.ones(2))  # the earlier ones are forgotten
    strength.adjust(**ADA)
    assert strength.p.item() == pytest.approx(0.5, abs=1e-7)


def test_without_a_report_p_stays():
    strength = AdaController(initial_p=0.5)
    strength.adjust(**ADA)
    assert strength.p.item() == 0.5


def test_p_never_falls_below_zero():
    strength = AdaController()
    strength.report(-torch.ones(4))
    strength.adjust(**ADA)
    assert strength.p.item() == 0.0


def test_only_the_effective_p_is_limited():
    strength = AdaController(initial_p=0.7, limit=0.7)
    strength.report(torch.ones(4))
    strength.adjust(**ADA)
    assert strength.p.item() == pytest.approx(0.7 + STEP, abs=1e-7)
    assert strength.p_clamped.item() == pytest.approx(0.7)
    assert strength.p_clamped.shape == ()


def test_fixed_p_ignores_the_discriminator():
    strength = AdaController(initial_p=0.2, adaptive=False)
    strength.report(torch.ones(4))
    strength.adjust(**ADA)
    assert strength.p.item() == strength.p_clamped.item() == pytest.approx(0.2)


def test_a_broken_logit_does_not_stay_in_p():
    strength = AdaController(initial_p=0.5)
    strength.report(torch.tensor([float("nan"), 1.0, float("inf")]))
    strength.adjust(**ADA)
    assert strength.p.item() == pytest.approx(0.5 + STEP, abs=1e-7)


def test_reports_keep_no_graph():
    strength, logits = AdaController(), torch.ones(4, requires_grad=True)
    strength.report(logits * 2)
    strength.adjust(**ADA)
    assert not strength.p.requires_grad


def test_all_ranks_agree_on_the_mean_of_all():
    ranks: list[AdaController] = []
    totals = [torch.tensor([8.0, 8.0]), torch.tensor([-2.0, 8.0])]  # mean sign 1 here, -0.25 there, 0.375 together
    for _ in totals:
        ranks.append(AdaController(initial_p=0.5, reduce_sum=lambda mine: torch.stack(totals).sum(dim=0).to(mine)))
    for rank, logits in zip(ranks, (torch.ones(8), torch.tensor([1.0] * 3 + [-1.0] * 5)), strict=True):
        rank.report(logits)
        rank.adjust(**ADA)
    assert ranks[0].p.item() == ranks[1].p.item() == pytest.approx(0.5 - STEP, abs=1e-7)


@pytest.mark.parametrize("world", [1, 3])
def test_a_restart_between_adjustments_changes_nothing(world, tmp_path):
    def reduce_sum(mine: Tensor) -> Tensor:
        return mine * world  # as if every rank had seen the same

    before, after = logits_with_mean_sign(0.9, 80), logits_with_mean_sign(-0.1, 40)  # together below the target
    straight = AdaController(initial_p=0.5, reduce_sum=reduce_sum)
    straight.report(before)
    torch.save(straight.state_dict(), tmp_path / "state.pt")
    straight.report(after)
    straight.adjust(**ADA)

    resumed = AdaController(reduce_sum=reduce_sum)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    resumed.report(after)
    resumed.adjust(**ADA)
    assert resumed.p.item() == straight.p.item() == pytest.approx(0.5 - STEP, abs=1e-7)
    for strength in (straight, resumed):  # and the restored totals are used once
        strength.report(torch.ones(1))
        strength.adjust(**ADA)
    assert resumed.p.item() == straight.p.item() == pytest.approx(0.5, abs=1e-7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"initial_p": -0.1}, "initial_p=-0.1"), ({"initial_p": 1.1}, "initial_p=1.1"), ({"limit": 2}, "limit=2")],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        AdaController(**arguments)


def test_a_speed_of_zero_is_refused():
    with pytest.raises(ValueError, match="speed_nimg=0"):
        AdaController().adjust(batch_size=32, interval=4, target=0.6, speed_nimg=0)
