"""Training states that are damaged in every way: the run goes back to the one before, or says what is wrong; none is lost."""

import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from training_run import Run

LATEST, PREVIOUS = "training-state-latest.pt", "training-state-previous.pt"


class Malicious:
    """Runs code where a file is unpickled carelessly."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return pytest.fail, ("code of a file was run",)


def cut(share: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return damage


def flip_bit(share: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(len(content) * share)] ^= 1
        path.write_bytes(content)

    return damage


def zero_end(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-5000] + bytes(5000))


def other_zip(path: Path) -> None:
    path.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")


def snapshot_in_its_place(path: Path) -> None:
    shutil.copy(next(path.parent.glob("network-snapshot-0*.pkl")), path)


def folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


def newer_version(path: Path) -> None:
    torch.save({**torch.load(path, weights_only=True), "version": 99}, path)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: path.write_bytes(b""),
    "first bytes only": cut(0.01),
    "half": cut(0.5),
    "all but the last byte": cut(0.9999999),
    "one bit in the middle": flip_bit(0.5),
    "one bit near the start": flip_bit(0.02),
    "end of zeros": zero_end,
    "text": lambda path: path.write_text("<html>Not found</html>"),
    "another zip": other_zip,
    "a snapshot": snapshot_in_its_place,
    "a pickle that runs code": lambda path: path.write_bytes(pickle.dumps(Malicious())),
    "a folder": folder_in_its_place,
    "of a newer version": newer_version,
}


@pytest.fixture(scope="module")
def stopped(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two states that could go on."""
    run = Run(digits, tmp_path_factory.mktemp("stopped"))
    run.finish("--kimg=0.016")
    return run


def train(run: Run, *options: str) -> tuple[int, str]:
    """Go on with a run in this process, which is quicker than starting one; its exit code and output."""
    from click.testing import CliRunner
    from training_run import TINY

    import train as program

    arguments = [f"--data={run.data}", f"--outdir={run.outdir}", *TINY, "--resume=latest", *options]
    result = CliRunner().invoke(program.main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("name", DAMAGES)
def test_damage(stopped: Run, tmp_path: Path, name: str) -> None:
    run = Run(stopped.data, tmp_path / "runs")
    shutil.copytree(stopped.outdir, run.outdir)
    latest, previous = run.folder / LATEST, run.folder / PREVIOUS
    good, good_content = torch.load(previous, weights_only=True), previous.read_bytes()
    DAMAGES[name](latest)
    before = run.folder
    code, output = train(run, f"--kimg={good['cur_nimg'] / 1000}")  # reached already: nothing but the end is left to do
    assert code == 0, output
    assert f"Warning: {latest}: " in output and f"Using {PREVIOUS} of {good['cur_nimg'] / 1000:g} kimg" in output
    assert run.folder == before

    DAMAGES[name](latest) if latest.is_file() else None
    shutil.rmtree(latest) if latest.is_dir() else latest.unlink()
    previous.write_bytes(good_content)
    shutil.copy(previous, latest)
    for path in (latest, previous):
        DAMAGES[name](path)
    damaged = {path: path.read_bytes() for path in (latest, previous) if path.is_file()}
    code, output = train(run)
    assert code == 1 and "no training state there can be read" in output and "--resume=FILE" in output
    assert all(path.read_bytes() == content for path, content in damaged.items()) and run.folder == before


def test_the_state_of_other_networks(stopped: Run, tmp_path: Path) -> None:
    run = Run(stopped.data, tmp_path / "runs")
    shutil.copytree(stopped.outdir, run.outdir)
    content = (run.folder / LATEST).read_bytes()
    code, output = train(run, "--force", "--g_dict=32,16,16")
    assert code == 1 and "its training state does not fit these settings or this version" in output
    assert (run.folder / LATEST).read_bytes() == content
