"""What asks a run to stop, and what it leaves."""

import itertools
import os
import signal
import time
from pathlib import Path

import pytest
from tiny_runs import start

from training.checkpoint.state_file import find_state
from training.config import RunConfig
from training.data.stream import DataError
from training.run.stop import Stop, StopRequest
from training.supervisor import supervise


def test_signals_are_noted_and_the_second_interrupt_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert stop.reason is Stop.NO
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.agreed() is Stop.TERMINATED
        os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C under torchrun brings both
        assert stop.reason is Stop.INTERRUPTED
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_closed_terminal_asks_to_stop_but_not_under_nohup() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.reason is Stop.HUNG_UP
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.reason is Stop.NO
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_out_of_time_saves_where_it_stands(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    assert StopRequest(time.monotonic() + 1000).agreed() is Stop.NO
    loop = start(tiny_config, tiny_data, tmp_path / "run", stop=StopRequest(time.monotonic()))
    assert supervise(loop) is Stop.TIME
    assert find_state(tmp_path / "run")["cur_nimg"] == loop.state.cur_nimg == 0  # type: ignore[index]


def test_unusable_images_end_the_run_with_its_state(tiny_config, tiny_data, tmp_path) -> None:
    loop = start(tiny_config, tiny_data, tmp_path / "run")
    good = list(itertools.islice(loop.reals, 3 * tiny_config.schedule.batch // loop.micro_batch))

    def failing():  # type: ignore[no-untyped-def]
        yield from good
        raise DataError("the data set is gone")

    loop.reals = failing()
    with pytest.raises(DataError, match="the data set is gone"):
        supervise(loop)
    assert find_state(tmp_path / "run")["cur_nimg"] == 3 * tiny_config.schedule.batch  # type: ignore[index]


def test_a_stop_in_the_last_metrics_is_reported(tiny_config, tiny_data, tmp_path, monkeypatch) -> None:
    """The metrics of the second average are left to a resumed run."""
    measured: list[str] = []
    stop = StopRequest()

    def measure(names: object, G: object, dataset: object, snapshot: object, seed: int, folder: str) -> list[object]:
        measured.append(folder)
        os.kill(os.getpid(), signal.SIGTERM)
        return []

    monkeypatch.setattr("training.run.training_run.evaluate_snapshot", measure)
    config = tiny_config.changed(
        schedule={"kimg": 0.008, "metrics": ("proxy_fd_randconv_v1",)}, ema={"kimg": (0.02, 0.2)}
    )
    with stop:
        loop = start(config, tiny_data, tmp_path / "run", stop=stop)
        assert supervise(loop) is Stop.TERMINATED
    assert measured == [""] and loop.saved_nimg == 8


def test_a_run_that_should_stop_begins_no_metrics(tiny_config, tiny_data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("training.run.training_run.evaluate_snapshot", lambda *arguments: pytest.fail("measured"))
    config = tiny_config.changed(schedule={"metrics": ("proxy_fd_randconv_v1",)})
    loop = start(config, tiny_data, tmp_path / "run", stop=StopRequest(time.monotonic()))
    loop.state.cur_nimg = 8
    loop.save_snapshot()
    loop.measure()
