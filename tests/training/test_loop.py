"""Whole runs of the tiny configuration: every phase, mixing, path length, augmentation, accumulation and restart."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_best import RESULT
from tiny_runs import assert_same, start, train

from dnnlib.files import file_sha256
from metrics.results import append_rows, read_rows
from training.checkpoint.snapshot import load_discriminator, load_generator
from training.checkpoint.state_file import find_state
from training.config import RunConfig
from training.evaluation.snapshots import missed_metrics
from training.run.stop import Stop, StopRequest
from training.run.training_run import TrainingRun
from training.run_report import run_folder
from training.supervisor import supervise

METRIC = "proxy_fd_randconv_v1"

# Mean losses of each tick of the tiny run, by the probability of style mixing. Recorded once; a change of these numbers is a
# change of what is computed.
RECORDED = {
    0.0: {
        "Loss/G/loss": [0.852373742, 0.791200701, 0.807113487],
        "Loss/D/loss": [1.34712311, 1.35209712, 1.35489437],
        "Loss/r1_penalty": [0.00600538079, 0.00437884562, 0.0059099822],
        "Loss/pl_penalty": [1.50729221, 2.01574761, 1.19296968],
    },
    0.5: {
        "Loss/G/loss": [0.792853381, 0.839083601, 0.871934902],
        "Loss/D/loss": [1.34200097, 1.31661921, 1.33733117],
        "Loss/r1_penalty": [0.00600538079, 0.00528292925, 0.0057457471],
        "Loss/pl_penalty": [1.50729221, 1.27592538, 1.55867749],
    },
}


class StopAfter(StopRequest):
    """Asks to stop after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.calls = iter(range(steps))

    def agreed(self, has_failed: bool = False) -> Stop:
        return Stop.TIME if next(self.calls, None) is None else Stop.NO


def rows(run_dir: Path) -> list[dict[str, Any]]:
    """stats.jsonl without what depends on the clock or the machine."""
    private = ("timestamp", "Timing/", "Resources/")
    found = run_folder.read_rows(run_dir / "stats.jsonl")
    return [{name: value for name, value in row.items() if not name.startswith(private)} for row in found]


@pytest.mark.parametrize("mixing_prob", RECORDED)
def test_recorded_losses(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path, mixing_prob: float) -> None:
    config = tiny_config.changed(loss={"mixing_prob": mixing_prob})
    train(config, tiny_data, tmp_path / "run")
    found = rows(tmp_path / "run")[1:]
    for name, expected in RECORDED[mixing_prob].items():
        assert [row[name]["mean"] for row in found] == pytest.approx(expected, rel=1e-5), name


def test_recomputed_stages_give_the_same_run(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    """Every weight, average and statistic, bit for bit: noise is drawn again as it was."""
    config = tiny_config.changed(schedule={"kimg": 0.024})
    states = []
    for stages in (0, 1, 2):
        changed = config.changed(performance={"recomputed_stages": stages})
        states.append(train(changed, tiny_data, tmp_path / str(stages)).state.state_dict())
    assert_same(states[1], states[0])
    assert_same(states[2], states[0])


@pytest.fixture(scope="module")
def labelled(tiny_config: RunConfig) -> RunConfig:
    return tiny_config.changed(data={"cond": True, "workers": 1})


@pytest.fixture(scope="module")
def whole(labelled: RunConfig, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    """A run that nothing interrupted."""
    return train(labelled, tiny_data, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("stop_nimg", [8, 24, 32])
def test_resumed_run_equals_the_uninterrupted_one(labelled, whole, tiny_data, tmp_path, stop_nimg) -> None:
    schedule = replace(labelled.schedule, state_kimg=0.008, tick_kimg=1000.0)
    train(replace(labelled, schedule=schedule), tiny_data, tmp_path, stop_nimg / 1000)
    assert find_state(tmp_path)["cur_nimg"] == stop_nimg  # type: ignore[index]
    resumed = train(labelled, tiny_data, tmp_path)
    assert_same(resumed.state.state_dict(), whole.state.state_dict())
    name = "network-snapshot-000000.pkl"
    first, second = (torch.load(folder / name, weights_only=True) for folder in (tmp_path, whole.run_dir))
    assert_same(first["G_ema"], second["G_ema"])


def test_stats_continue_on_resume(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    """A tick that spans a restart averages over both parts, and rows are neither lost nor doubled."""
    config = tiny_config.changed(schedule={"state_kimg": 0.008})
    train(config, tiny_data, tmp_path / "whole")
    parts = tmp_path / "parts"
    assert supervise(start(config, tiny_data, parts, stop=StopAfter(3))) is Stop.TIME
    assert find_state(parts)["cur_nimg"] == 24  # type: ignore[index]
    train(config, tiny_data, parts)
    assert rows(parts) == rows(tmp_path / "whole")


def test_files_of_a_run(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    """Of a run between its 984th and 1000th image, which keeps one snapshot."""
    config = tiny_config.changed(schedule={"kimg": 1.0, "tick_kimg": 0.008, "keep": 1})
    loop = start(config, tiny_data, tmp_path)
    loop.state.cur_nimg = 984
    supervise(loop)
    names = {path.name for path in tmp_path.iterdir()}
    assert {name for name in names if name.startswith("network-snapshot")} == {"network-snapshot-000001.pkl"}
    assert names >= {"fakes000000.png", "fakes000001.png", "training-state-latest.pt", "training-state-previous.pt"}
    newest = tmp_path / "network-snapshot-000001.pkl"
    generator, discriminator = load_generator(newest), load_discriminator(newest)
    assert not generator.training and not any(p.requires_grad for p in generator.parameters())
    z, image = torch.randn(2, 8), torch.randn(2, 3, 16, 16)
    assert torch.equal(generator(z, noise_mode="const"), loop.state.G_ema(z, noise_mode="const"))
    assert torch.equal(discriminator(image), loop.state.D.eval()(image))


def test_metrics_that_a_stop_prevented_are_computed_on_resume(tiny_config, tiny_data, tmp_path, monkeypatch, capsys):
    """Once, of the snapshot as old as the state; a metric that fails does not end the training."""
    errors: list[BaseException] = [RuntimeError("out of memory"), KeyboardInterrupt()]

    def measure(names: tuple[str, ...], G: object, dataset: object, snapshot: Path, *others: object) -> list[Any]:
        if errors:
            raise errors.pop()
        row = replace(RESULT, metric=METRIC, snapshot=snapshot.name, snapshot_hash=file_sha256(snapshot))
        append_rows([row], snapshot.parent)
        return []

    monkeypatch.setattr("training.run.training_run.evaluate_snapshot", measure)
    config = tiny_config.changed(schedule={"kimg": 0.016, "metrics": (METRIC,)})
    with pytest.raises(KeyboardInterrupt):
        train(config, tiny_data, tmp_path)
    for num_rows in (0, 1, 1):
        assert find_state(tmp_path)["cur_nimg"] == 16  # type: ignore[index]
        train(config, tiny_data, tmp_path)
        assert [row["snapshot"] for row in read_rows(tmp_path, METRIC)] == ["network-snapshot-000000.pkl"] * num_rows
    assert "failed, training continues: out of memory" in capsys.readouterr().out
    snapshot = tmp_path / "network-snapshot-000000.pkl"  # of 16 images; the name counts thousands
    assert missed_metrics(("other",), snapshot, 16) == ("other",)
    assert missed_metrics(("other",), snapshot, 24) == missed_metrics((), snapshot, 16) == ()
