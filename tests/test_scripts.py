"""The scripts as people type them: real subprocesses on real files."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

ROOT = Path(__file__).parents[1]
TINY = ["--cfg=demo", "--g_dict=16,16,16", "--batch=8", "--workers=0", "--set=generator.z_dim=16",
        "--set=generator.w_dim=16", "--set=discriminator.channel_base=256", "--set=discriminator.channel_max=8"]  # fmt: skip


def run(script: str, *arguments: object, ok: bool = True) -> str:
    """Run a script; its output, stdout and stderr together."""
    command = [sys.executable, str(ROOT / f"{script}.py"), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=environment
    )
    assert (done.returncode == 0) is ok, done.stdout
    return done.stdout


def refused(script: str, *arguments: object) -> str:
    """The output of a script that ends with an error, run in this process."""
    result = CliRunner().invoke(importlib.import_module(script).main, [*map(str, arguments)])
    assert result.exit_code in (1, 2) and isinstance(result.exception, SystemExit), result.output
    return result.output


@pytest.fixture(scope="module")
def trained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of 48 images."""
    outdir = tmp_path_factory.mktemp("runs")
    run("train", f"--outdir={outdir}", f"--data={digits}", "--cond=1", "--kimg=0.048", "--tick=0.016", *TINY)
    (run_dir,) = outdir.iterdir()
    return run_dir


def test_run_folder(trained: Path) -> None:
    assert trained.name == "00000-digits-cond-demo-batch8"
    names = {path.name for path in trained.iterdir()}
    assert names >= {
        "training_options.json", "log.txt", "stats.jsonl", "reals.png", "fakes_init.png", "fakes000000.png",
        "network-snapshot-000000.pkl", "training-state-latest.pt",
    }  # fmt: skip
    with Image.open(trained / "fakes000000.png") as grid:
        assert grid.size == (320, 192)  # 10 classes of 6 images
    assert "kimg 0.0" in (trained / "log.txt").read_text(encoding="utf-8")
    options = json.loads((trained / "training_options.json").read_text(encoding="utf-8"))
    assert options["generator"]["widths"] == [16, 16, 16]
    plain = torch.load(trained / "network-snapshot-000000.pkl", weights_only=True)
    assert plain["cur_nimg"] == 48


def test_same_seed_same_image(trained: Path, tmp_path: Path) -> None:
    """Random noise too follows from the seed."""
    common = [f"--network={trained / 'network-snapshot-000000.pkl'}", "--class=5", "--noise-mode=random"]
    run("generate", *common, "--seeds=0-3,7", f"--outdir={tmp_path / 'a'}", "--grid")
    for folder in "bc":
        run("generate", *common, "--seeds=7,3", f"--outdir={tmp_path / folder}", "--batch=1")
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "seed0000.png", "seed0001.png", "seed0002.png", "seed0003.png", "seed0007.png", "grid.png",
    }  # fmt: skip
    for name in ("seed0003.png", "seed0007.png"):
        images = [np.asarray(Image.open(tmp_path / folder / name)).astype(int) for folder in "ab"]
        assert abs(images[0] - images[1]).max() <= 1  # batches of another size may round differently
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()


def test_fine_tuning_starts_from_the_weights(trained: Path, digits: Path, tmp_path: Path) -> None:
    network = trained / "network-snapshot-000000.pkl"
    run("train", f"--outdir={tmp_path}", f"--data={digits}", "--cond=1", "--kimg=0.008", f"--resume={network}", *TINY)
    (run_dir,) = tmp_path.iterdir()
    assert (run_dir / "fakes_init.png").read_bytes() == (trained / "fakes000000.png").read_bytes()


@pytest.mark.parametrize(
    ("script", "arguments"),
    [("train", ["--data=missing.zip"]), ("generate", ["--network=missing.zip", "--seeds=0"])],
)
def test_an_error_ends_the_script_with_a_line(script: str, arguments: list[str], tmp_path: Path) -> None:
    output = run(script, f"--outdir={tmp_path / 'o'}", *arguments, ok=False)
    assert "Error: " in output.splitlines()[-1] and "missing.zip" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train", ["--outdir=o", "--data={digits}", "--cfg=imagenet"], "--cfg"),
        ("train", ["--outdir=o", "--data={digits}", "--metrics=fid"], "fid"),
        ("generate", ["--network={digits}", "--seeds=0", "--outdir=o"], "this is a data set"),
        ("generate", ["--network={network}", "--seeds=0", "--outdir=o", "--class=eleven"], "choose 0-9"),
        ("generate", ["--network={network}", "--seeds=a-b", "--outdir=o"], "--seeds"),
        ("generate", ["--network={network}", "--seeds=0-4", "--outdir=o", "--grid=2x1"], "room for 2"),
        ("generate", ["--network={network}", "--seeds=0-4", "--outdir=o", "--grid=0x0"], "rows x columns"),
    ],
)
def test_bad_input_gets_one_clear_line(
    script: str, arguments: list[str], message: str, digits: Path, trained: Path, tmp_path: Path
) -> None:
    network = trained / "network-snapshot-000000.pkl"
    filled = [text.format(digits=digits, network=network).replace("=o", f"={tmp_path / 'o'}") for text in arguments]
    assert message in refused(script, *filled)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--aug=ada", "--p=0.2"], "--aug=fixed"),
        (["--aug=fixed"], "--p=0.2"),
        (["--aug=noaug", "--augpipe=bgc"], "--augpipe"),
        (["--aug=fixed", "--p=0.1", "--target=0.5"], "--target"),
        (["--freezed=2"], "--resume=FILE"),
        (["--resume={digits}"], "this is a data set"),
        (["--resume={network}"], "generator.widths (16, 16, 16) there"),
        (["--cond=1", "--resume={network}"], "generator.widths"),
        (["--set=loss.gama=1"], "loss.gama"),
        (["--set=loss.r1_gamma=much"], "--set loss.r1_gamma"),
        (["--batch=7", "--batch-gpu=3"], "--batch-gpu"),
        (["--g_dict=64,32"], "--g_dict"),
        (["--kimg=0"], "--kimg"),
        (["--gamma=1e308"], "--gamma is too large"),
        (["--batch-gpu=" + "9" * 5000], "--batch-gpu"),
        (["--stop-after=" + "9" * 400 + "d"], "--stop-after"),
        (["--set=data.path=other.zip"], "use --data"),
        (["--set=preset=demo"], "use --cfg"),
        (["--resume=last"], "--resume=latest"),
        (["--resume="], "--resume=latest"),
        (["--resume={runs}"], "--outdir={runs} --resume=latest"),
        (["--resume={run}"], "--outdir={runs} --resume=latest"),
        (["--resume={run}/training-state-latest.pt"], "--outdir={runs} --resume=latest"),
        (["--resume"], "write --resume=latest"),
        (["--mirror", "--seed=1"], "write --mirror=1"),
        (["--cond"], "write --cond=1"),
        (["--lr=0.001"], "--set optimizer.g_lr=0.001"),
        (["--batch-size=8"], "write --batch=32"),
        (["--batch_gpu=8"], "write --batch-gpu"),
        (["--epochs=3"], "write --kimg=1000"),
        (["--gpus=3"], "use --batch=33"),
        (["--subset=1000"], "--subset"),
    ],
)
def test_bad_options_of_train_get_one_clear_line(
    arguments: list[str], message: str, digits: Path, trained: Path, tmp_path: Path
) -> None:
    network = trained / "network-snapshot-000000.pkl"
    filled = [text.format(digits=digits, network=network, run=trained, runs=trained.parent) for text in arguments]
    message = message.format(runs=trained.parent)
    assert message in refused("train", f"--outdir={tmp_path / 'o'}", f"--data={digits}", "--cfg=cifar", *filled)
    assert not (tmp_path / "o").exists()


def test_unwritable_outdir(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    assert "cannot write there" in refused("train", f"--outdir={tmp_path / 'file' / 'runs'}", f"--data={digits}", *TINY)


def test_dry_run_prints_what_it_costs_and_writes_nothing(digits: Path, tmp_path: Path) -> None:
    output = run("train", f"--outdir={tmp_path / 'o'}", f"--data={digits}", *TINY, "--gpus=2", "--cond=1", "-n")
    assert torch.cuda.is_available() or "2 processes share the CPU" in output
    assert '"widths": [\n' in output and "GFLOP per image forward" in output and "Memory: " in output
    assert not (tmp_path / "o").exists()


def test_too_little_memory_is_one_line_with_a_remedy(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(options: object) -> None:
        raise RuntimeError(
            "process 1 failed:\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB."
        )

    monkeypatch.setattr("training.launch.launch", fail)
    output = refused("train", f"--outdir={tmp_path}", f"--data={digits}")
    assert output.count("\n") == 1
    assert "not enough memory on the GPU for 20.00 GiB more; use smaller numbers: --batch-gpu=auto" in output
