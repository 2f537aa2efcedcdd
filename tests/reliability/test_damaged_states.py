"""Damaged training states: the run resumes from the one before, or ends with a clear error and leaves the files."""

import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from training_run import TINY, Run

import train as program

LATEST, PREVIOUS = "training-state-latest.pt", "training-state-previous.pt"


class Malicious:
    """Runs code where a file is unpickled carelessly."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return pytest.fail, ("code of a file was run",)


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "all but the last byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "one bit in the middle": flip_bit,
    "end of zeros": lambda path: path.write_bytes(path.read_bytes()[:-5000] + bytes(5000)),
    "another zip": other_zip,
    "a snapshot": lambda path: shutil.copy(next(path.parent.glob("network-snapshot-0*.pkl")), path),
    "a pickle that runs code": lambda path: path.write_bytes(pickle.dumps(Malicious())),
    "of a newer version": lambda path: torch.save({**torch.load(path, weights_only=True), "version": 99}, path),
}


def train(run: Run, *options: str) -> tuple[int, str]:
    """Resume a run in this process; its exit code and output."""
    arguments = [f"--data={run.data}", f"--outdir={run.outdir}", *TINY, "--resume=latest", *options]
    result = CliRunner().invoke(program.main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("name", DAMAGES)
def test_damage(whole: Run, tmp_path: Path, name: str) -> None:
    run = Run(whole.data, tmp_path / "runs")
    shutil.copytree(whole.outdir, run.outdir)
    latest, previous = run.folder / LATEST, run.folder / PREVIOUS
    good, good_content = torch.load(previous, weights_only=True), previous.read_bytes()
    DAMAGES[name](latest)
    before = run.folder
    code, output = train(run, f"--kimg={good['cur_nimg'] / 1000}")  # reached already: trains no step
    assert code == 0, output
    assert f"Warning: {latest}: " in output and f"Using {PREVIOUS} of {good['cur_nimg'] / 1000:g} kimg" in output
    assert run.folder == before

    for path in (latest, previous):
        path.write_bytes(good_content)
        DAMAGES[name](path)
    damaged = {path: path.read_bytes() for path in (latest, previous)}
    code, output = train(run)
    assert code == 1 and "no training state there can be read" in output and "--resume=" in output
    assert all(path.read_bytes() == content for path, content in damaged.items()) and run.folder == before


def test_the_state_of_other_networks(whole: Run, tmp_path: Path) -> None:
    run = Run(whole.data, tmp_path / "runs")
    shutil.copytree(whole.outdir, run.outdir)
    content = (run.folder / LATEST).read_bytes()
    code, output = train(run, "--force", "--g_dict=32,16,16")
    assert code == 1 and "no run in" in output and "generator.widths" in output
    assert (run.folder / LATEST).read_bytes() == content
