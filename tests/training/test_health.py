"""Steps with non-finite losses or gradients: counted, reported, and after a number of them rolled back."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_runs import start

from training.checkpoint.state_file import find_state
from training.config import RunConfig
from training.launch import to_resume
from training.losses.logistic import LogisticLoss
from training.run_report.run_folder import read_rows
from training.supervisor import DivergedError, supervise


def small(config: RunConfig, **schedule: object) -> RunConfig:
    """Batches of 8 images in 2 passes; the state is saved every second step, divergence seen every eighth."""
    return config.changed(
        schedule={"batch_gpu": 4, "state_kimg": 0.016, "max_nonfinite": 2} | schedule,
        loss={"r1_gamma": 0.0, "pl_weight": 0.0},
        generator={"widths": (8, 8), "layers": (1, 1)},
        discriminator={"channel_max": 4},
        augment={"mode": "noaug"},
    )


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[[range], None]:
    """Make the generator's loss NaN in these of its calls."""

    def put(bad: range) -> None:
        calls, terms = itertools.count(), LogisticLoss.g_main
        monkeypatch.setattr(
            LogisticLoss, "g_main", lambda *of: (term * math.nan if next(calls) in bad else term for term in terms(*of))
        )

    return put


def test_a_single_bad_step_is_reported_and_skipped(tiny_config, tiny_data, tmp_path, poison, capsys) -> None:
    poison(range(1, 2))
    loop = start(small(tiny_config, kimg=0.04, batch_gpu=None), tiny_data, tmp_path / "run")
    supervise(loop)
    assert loop.state.finite.total_bad == 1 and loop.state.num_rollbacks == 0
    assert "nonfinite 1" in capsys.readouterr().out
    rows = read_rows(tmp_path / "run" / "stats.jsonl")
    assert rows[-1]["Progress/nonfinite_steps"]["mean"] == 1
    assert all(p.isfinite().all() for p in loop.state.G_ema.parameters())


def test_a_diverged_run_goes_back_and_takes_another_way(tiny_config, tiny_data, tmp_path, poison, capsys) -> None:
    poison(range(12, 16))
    loop = start(small(tiny_config, kimg=0.128), tiny_data, tmp_path / "run")
    supervise(loop)
    output = capsys.readouterr().out
    assert "the run diverged at 0.064 kimg" in output and "Returning to 0.048 kimg" in output
    assert loop.state.num_rollbacks == 1 and loop.state.cur_nimg == 128
    assert loop.state.seed != tiny_config.schedule.seed
    saved = find_state(tmp_path / "run")
    assert saved is not None and saved["state"]["num_rollbacks"] == 1 and saved["cur_nimg"] == 128
    resumed = start(loop.config, tiny_data, tmp_path / "run")
    assert resumed.latents.seed == loop.latents.seed


def test_returns_to_newer_states_are_counted_anew(
    tiny_config: RunConfig, tiny_data: Path, tmp_path: Path, poison: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    poison([*range(12, 16), *range(32, 36)])
    loop = start(small(tiny_config, kimg=0.192, max_rollbacks=1), tiny_data, tmp_path / "run")
    supervise(loop)
    assert capsys.readouterr().out.count("1 of at most 1 times") == 2
    assert loop.state.num_rollbacks == 2 and loop.state.cur_nimg == 192


def test_a_stop_names_the_state_on_the_disk(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    loop = start(small(tiny_config), tiny_data, tmp_path / "run")
    assert to_resume(loop) == "No state is saved. To start again:"
    loop.save_state()
    assert to_resume(loop) == "To resume:"
    loop.state.cur_nimg = 8000
    next(loop.state.G.parameters()).data.fill_(math.nan)
    loop.save_state()
    assert to_resume(loop) == "The last state is that of 0 kimg. To resume from there:"


def test_gives_up_after_the_stated_number_and_keeps_the_good_state(
    tiny_config: RunConfig, tiny_data: Path, tmp_path: Path, poison: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    poison(range(8, 1_000_000))
    loop = start(small(tiny_config, kimg=1.0, max_rollbacks=2), tiny_data, tmp_path / "run")
    with pytest.raises(DivergedError, match="after 2 returns to a good state"):
        supervise(loop)
    assert "the state at 0.048 kimg is not saved: it is not finite" in capsys.readouterr().out
    saved = find_state(tmp_path / "run")
    assert saved is not None and saved["cur_nimg"] == 32 and saved["state"]["health"]["streak"] == 0
    assert all(weight.isfinite().all() for weight in saved["state"]["G"].values())
