"""Reports of real, tiny runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training.checkpoint.state_file import find_state
from training.config import RunConfig
from training.data.stream import ImageDataset
from training.run.names import FACTS_FILE, REPORT_FILE
from training.run.stop import Stop, StopRequest
from training.run.training_run import RealBatch, TrainingRun
from training.run_report.renewal import RunReport, write_report
from training.supervisor import supervise

CPU = torch.device("cpu")


def start(config: RunConfig, data: Path, run_dir: Path, stop: StopRequest | None = None) -> TrainingRun:
    run_dir.mkdir()
    return TrainingRun(config, ImageDataset(data), run_dir, CPU, stop=stop, command="python train.py --resume=latest")


def status(run_dir: Path) -> tuple[str, str]:
    facts = json.loads((run_dir / FACTS_FILE).read_text(encoding="utf-8"))
    return facts["status"], facts["reason"]


def test_a_run_leaves_a_report(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    loop = start(tiny_config, tiny_data, tmp_path / "run")
    seen: list[tuple[str, str]] = []
    renew = loop.run_report.write

    def spy(*arguments: str) -> None:
        renew(*arguments)
        seen.append(status(tmp_path / "run"))

    loop.run_report.write = spy  # type: ignore[method-assign]
    supervise(loop)
    assert seen == [("running", "")] * 4 + [("done", "")]  # at the start, at 0, 16 and 32 images, and at the end
    page = (tmp_path / "run" / REPORT_FILE).read_text(encoding="utf-8")
    parameters = sum(p.numel() for p in loop.state.G.parameters())
    for text in ("Done", f"{parameters:,} parameters", "16 x 16 px", torch.__version__, "--resume=latest"):
        assert text in page


def test_the_report_tells_why_a_run_stopped(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    with StopRequest(after_sec=0) as stop:
        assert supervise(start(tiny_config, tiny_data, tmp_path / "run", stop)) is Stop.TIME
    assert status(tmp_path / "run") == ("stopped", "the time of --stop-after is over")


def test_a_run_that_goes_on_is_no_longer_called_stopped(
    tiny_config: RunConfig, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StopRequest(after_sec=0) as stop:
        supervise(start(tiny_config, tiny_data, tmp_path / "run", stop))
    seen = []
    next_batch = TrainingRun.next_batch

    def spy(loop: TrainingRun) -> RealBatch:
        seen.append(status(tmp_path / "run"))
        return next_batch(loop)

    monkeypatch.setattr(TrainingRun, "next_batch", spy)
    saved = find_state(tmp_path / "run", print)
    supervise(TrainingRun(tiny_config, ImageDataset(tiny_data), tmp_path / "run", CPU, saved))
    assert set(seen) == {("running", "")}
    assert status(tmp_path / "run") == ("done", "")


def test_facts_that_cannot_be_found_out_do_not_end_the_training(tmp_path: Path) -> None:
    said: list[str] = []

    def gather() -> dict[str, object]:
        raise RuntimeError("no such device")

    RunReport(tmp_path, gather, said.append).write("failed", "another error")
    assert said == [f"Warning: {REPORT_FILE} was not renewed: no such device"]


def test_the_report_tells_why_a_run_failed(
    tiny_config: RunConfig, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(TrainingRun, "next_batch", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        supervise(start(tiny_config, tiny_data, tmp_path / "run"))
    assert status(tmp_path / "run") == ("failed", "out of memory")
    assert "out of memory" in (tmp_path / "run" / REPORT_FILE).read_text(encoding="utf-8")


def test_a_report_that_cannot_be_written_does_not_end_the_training(
    tiny_config: RunConfig, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(tiny_config, schedule=replace(tiny_config.schedule, kimg=0.016))
    loop = start(config, tiny_data, tmp_path / "run")
    (tmp_path / "run" / REPORT_FILE).mkdir()  # in the way
    assert supervise(loop) is Stop.NO
    assert loop.state.cur_nimg == 16
    assert f"Warning: {REPORT_FILE} was not renewed, training goes on" in capsys.readouterr().out


def test_a_full_disk_leaves_the_older_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    write_report(tmp_path)
    older = (tmp_path / REPORT_FILE).read_bytes()

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dnnlib.files.os.fsync", full)
    RunReport(tmp_path, dict, said.append).write()
    assert (tmp_path / REPORT_FILE).read_bytes() == older
    assert [path.name for path in tmp_path.iterdir()] == [REPORT_FILE]
    assert len(said) == 1 and "No space left" in said[0]


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    RunReport(tmp_path, dict, print, is_on=False).write()
    assert not list(tmp_path.iterdir())
