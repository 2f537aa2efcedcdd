import json
from pathlib import Path

import pytest
import torch

from torch_utils.stats import Scalar
from training.run.reporter import STATS_FILE, Reporter, forget_later_rows


def write_row(folder: Path, loss: Scalar) -> None:
    report = Reporter(folder, torch.device("cpu"), cur_nimg=0, total_nimg=10_000, is_quiet=False)
    report.tick_sec -= 20.0  # as if so many seconds had passed
    report.maintenance_sec = 10.0
    report.status(2000, augment_p=0.25, stats={"Loss/G/loss": loss}, num_nonfinite=0)
    report.close()


def test_status_line_and_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_row(tmp_path, Scalar(num=64, mean=0.7, std=0.1))
    line = capsys.readouterr().out
    for part in ("kimg 2.0", "sec/kimg 5.0", "maintenance 10.0", "augment 0.250", "G 0.70", "left 40s"):
        assert part in line
    (row,) = (json.loads(text) for text in (tmp_path / STATS_FILE).read_text(encoding="utf-8").splitlines())
    assert row["cur_nimg"] == 2000
    assert row["Loss/G/loss"] == {"num": 64, "mean": 0.7, "std": 0.1}
    assert row["Progress/augment"]["mean"] == 0.25
    assert row["Timing/sec_per_kimg"]["mean"] == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize(
    "damage", [b'{"cur_nimg": 4', b"[1]}", b"[1]", b'{"x": 1}', b'{"cur_nimg": NaN}', b'{"cur_nimg": null}', b"\xff{}"]
)
def test_damaged_rows_and_those_after_the_saved_state_are_dropped(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / STATS_FILE
    path.write_bytes(b'{"cur_nimg": 0}\n{"cur_nimg": 16}\n{"cur_nimg": 32}\n' + damage)
    forget_later_rows(path, 16)
    assert path.read_text(encoding="utf-8") == '{"cur_nimg": 0}\n{"cur_nimg": 16}\n'


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_null_in_the_row(tmp_path: Path, bad: float) -> None:
    """JSON knows neither NaN nor infinity; a resumed run reads such a row like any other."""

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    write_row(tmp_path, Scalar(num=64, mean=bad, std=bad))
    path = tmp_path / STATS_FILE
    row = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert row["Loss/G/loss"] == {"num": 64, "mean": None, "std": None}
    forget_later_rows(path, 2000)
    assert json.loads(path.read_text(encoding="utf-8")) == row
