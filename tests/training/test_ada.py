"""The controller of the augmentation probability: when p moves and where, also over restarts and ranks."""

import pytest
import torch
from torch import Tensor

from training.augment.ada import AdaController

ADA = {"batch_size": 32, "interval": 4, "target": 0.6, "speed_nimg": 500_000}
STEP = 32 * 4 / 500_000


def logits_with_mean_sign(mean: float, count: int = 100) -> Tensor:
    positive = round(count * (1 + mean) / 2)
    return torch.cat([torch.full([positive], 3.0), torch.full([count - positive], -0.1)])


@pytest.mark.parametrize(
    ("initial_p", "reports", "expected"),
    [
        (0.5, [logits_with_mean_sign(0.8)], 0.5 + STEP),
        (0.5, [logits_with_mean_sign(0.4)], 0.5 - STEP),
        (0.5, [logits_with_mean_sign(0.6)], 0.5),
        (0.5, [torch.ones(30, 1), -torch.ones(10, 1)], 0.5 - STEP),  # the mean of all is 0.5
        (0.5, [torch.tensor([float("nan"), 1.0, float("inf")])], 0.5 + STEP),
        (0.5, [], 0.5),
        (0.0, [-torch.ones(4)], 0.0),
        (1.0, [torch.ones(4)], 1.0 + STEP),
    ],
)
def test_p_moves_towards_the_target(initial_p: float, reports: list[Tensor], expected: float) -> None:
    ada = AdaController(initial_p=initial_p, limit=0.7)
    for logits in reports:
        ada.report(logits.requires_grad_())
    ada.adjust(**ADA)
    assert ada.p.item() == pytest.approx(expected, abs=1e-7) and not ada.p.requires_grad
    assert ada.p_clamped.item() == pytest.approx(min(expected, 0.7)) and ada.p_clamped.shape == ()


def test_fixed_p_ignores_the_discriminator():
    ada = AdaController(initial_p=0.2, adaptive=False)
    ada.report(torch.ones(4))
    ada.adjust(**ADA)
    assert ada.p.item() == ada.p_clamped.item() == pytest.approx(0.2)


def test_all_ranks_agree_on_the_mean_of_all():
    totals = [torch.tensor([8.0, 8.0]), torch.tensor([-2.0, 8.0])]  # mean signs 1 and -0.25, together 0.375
    reported = (torch.ones(8), torch.tensor([1.0] * 3 + [-1.0] * 5))
    for logits in reported:
        ada = AdaController(initial_p=0.5, reduce_sum=lambda mine: torch.stack(totals).sum(dim=0).to(mine))
        ada.report(logits)
        ada.adjust(**ADA)
        assert ada.p.item() == pytest.approx(0.5 - STEP, abs=1e-7)


@pytest.mark.parametrize("world", [1, 3])
def test_a_restart_between_adjustments_changes_nothing(world, tmp_path):
    def reduce_sum(mine: Tensor) -> Tensor:
        return mine * world  # as if every rank had seen the same

    before, after = logits_with_mean_sign(0.9, 80), logits_with_mean_sign(-0.1, 40)  # together below the target
    straight = AdaController(initial_p=0.5, reduce_sum=reduce_sum)
    straight.report(before)
    torch.save(straight.state_dict(), tmp_path / "state.pt")
    resumed = AdaController(reduce_sum=reduce_sum)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for logits, expected in ((after, 0.5 - STEP), (torch.ones(1), 0.5)):  # the restored totals are used once
        for ada in (straight, resumed):
            ada.report(logits)
            ada.adjust(**ADA)
        assert resumed.p.item() == straight.p.item() == pytest.approx(expected, abs=1e-7)
