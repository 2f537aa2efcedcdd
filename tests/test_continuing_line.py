"""The command that train.py prints to resume a run."""

import sys

import pytest

from training.launch import resume_command


@pytest.mark.parametrize("resume", [[], ["--resume=latest"], ["--resume", "latest"], ["--resume", "a file.pkl"]])
def test_it_is_the_same_command_with_resume_latest(resume: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--outdir=my runs", *resume, "--data", "d.zip"])
    assert resume_command() == "python train.py '--outdir=my runs' --data d.zip --resume=latest"


def test_torchrun_is_named_where_it_started_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--outdir=runs"])
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert resume_command() == "torchrun --nproc-per-node=2 train.py --outdir=runs --resume=latest"
