"""The scripts as people type them: real subprocesses on real files."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from file_server import serving
from PIL import Image
from scripts import run

from training.launch import resume_command

TINY = ["--cfg=demo", "--g_dict=16,16,16", "--batch=8", "--workers=0", "--set=generator.z_dim=16",
        "--set=generator.w_dim=16", "--set=discriminator.channel_base=256", "--set=discriminator.channel_max=8"]  # fmt: skip


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


@pytest.mark.parametrize("is_address", [False, True])
def test_fine_tuning_starts_from_the_weights(
    trained: Path, digits: Path, tmp_path: Path, monkeypatch, is_address: bool
) -> None:
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    network = trained / "network-snapshot-000000.pkl"
    runs = tmp_path / "runs"
    with serving() as server:
        server.files["/a.pkl"] = network.read_bytes()
        resume = f"{server.address}/a.pkl" if is_address else network
        run("train", f"--outdir={runs}", f"--data={digits}", "--cond=1", "--kimg=0.008", f"--resume={resume}", *TINY)
    (run_dir,) = runs.iterdir()
    assert (run_dir / "fakes_init.png").read_bytes() == (trained / "fakes000000.png").read_bytes()


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("generate", ["--network={digits}", "--seeds=0"], "this is a data set"),
        ("generate", ["--network={network}", "--seeds=0", "--class=eleven"], "choose 0-9"),
        ("generate", ["--network={network}", "--seeds=a-b"], "--seeds"),
        ("generate", ["--network={network}", "--export={run}/x.pkl", "--ema=0.1"], "leave out --ema"),
        ("generate", ["--network={network}", "--seeds=0-4", "--grid=2x1"], "room for 2"),
        ("generate", ["--network={network}", "--seeds=0-4", "--grid=0x0"], "rows x columns"),
        ("train", ["--metrics=fid"], "fid"),
        ("train", ["--aug=ada", "--p=0.2"], "--aug=fixed"),
        ("train", ["--aug=fixed"], "--p=0.2"),
        ("train", ["--aug=noaug", "--augpipe=bgc"], "--augpipe"),
        ("train", ["--aug=fixed", "--p=0.1", "--target=0.5"], "--target"),
        ("train", ["--freezed=2"], "--resume=FILE"),
        ("train", ["--freezed=99", "--resume={network}", *TINY], "leaves no layer to train: the discriminator has 7"),
        ("train", ["--resume={digits}"], "this is a data set"),
        ("train", ["--resume={network}"], "generator.widths (16, 16, 16) there"),
        ("train", ["--cond=1", "--resume={network}"], "generator.widths"),
        ("train", ["--set=loss.r1_gamma=much"], "--set loss.r1_gamma"),
        ("train", ["--gamma=1e308"], "--gamma is too large"),
        ("train", ["--batch-gpu=" + "9" * 5000], "--batch-gpu"),
        ("train", ["--stop-after=" + "9" * 400 + "d"], "--stop-after"),
        ("train", ["--set=loss.pl_weight=2", "--set=loss.kind=relativistic"], "there is no 'pl_weight'"),
        (
            "train",
            ["--darch=skip", "--set=discriminator.kind=vit"],
            "--darch has no meaning for --set discriminator.kind=vit",
        ),
        ("train", ["--set=data.path=other.zip"], "use --data"),
        ("train", ["--set=preset=demo"], "use --cfg"),
        ("train", ["--set=data.cond=true"], "use --cond"),
        ("train", ["--cfg=demo", "--target=0.5"], "with augment.mode=noaug; use --aug=ada"),
        ("train", ["--cfg=demo", "--augpipe=bgc"], "with augment.mode=noaug; use --aug=ada"),
        ("train", ["--set=loss.r1_gamma=1e39->1"], "--set loss.r1_gamma is too large"),
        ("train", ["--resume=http://127.0.0.1:9/a.pkl"], "the download failed"),
        ("train", ["--resume=last"], "--resume=latest"),
        ("train", ["--resume="], "--resume=latest"),
        ("train", ["--resume={runs}"], "--outdir={runs} --resume=latest"),
        ("train", ["--resume={run}"], "--outdir={runs} --resume=latest"),
        ("train", ["--resume={run}/training-state-latest.pt"], "--outdir={runs} --resume=latest"),
        ("train", ["--resume"], "write --resume=latest"),
        ("train", ["--mirror", "--seed=1"], "write --mirror=1"),
        ("train", ["--cond"], "write --cond=1"),
        ("train", ["--batch-size=8"], "write --batch=32"),
        ("train", ["--batch_gpu=8"], "write --batch-gpu"),
        ("train", ["--gpus=3"], "use --batch=33"),
    ],
)
def test_bad_input_gets_one_clear_line(script, arguments, message, digits, trained, tmp_path) -> None:
    network = trained / "network-snapshot-000000.pkl"
    places = {"digits": digits, "network": network, "run": trained, "runs": trained.parent}
    common = [f"--data={digits}", "--cfg=cifar"] if script == "train" else []
    filled = [text.format(**places) for text in arguments]
    output = refused(script, f"--outdir={tmp_path / 'o'}", *common, *filled)
    assert message.format(**places) in output
    assert not (tmp_path / "o").exists()


def test_unwritable_outdir(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    assert "cannot write there" in refused("train", f"--outdir={tmp_path / 'file' / 'runs'}", f"--data={digits}", *TINY)


def test_too_little_memory_is_one_line_with_a_remedy(digits, tmp_path, monkeypatch) -> None:
    def fail(options: object) -> None:
        raise RuntimeError(
            "process 1 failed:\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB."
        )

    monkeypatch.setattr("training.launch.launch", fail)
    output = refused("train", f"--outdir={tmp_path}", f"--data={digits}")
    assert output.count("\n") == 1
    assert "not enough memory on the GPU for 20.00 GiB more; use smaller numbers: --batch-gpu=auto" in output


@pytest.mark.parametrize("resume", [[], ["--resume=latest"], ["--resume", "latest"], ["--resume", "a file.pkl"]])
def test_the_command_that_resumes_is_the_same_with_resume_latest(
    resume: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--outdir=my runs", *resume, "--data", "d.zip"])
    assert resume_command() == "python train.py '--outdir=my runs' --data d.zip --resume=latest"


def test_torchrun_is_named_where_it_started_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--outdir=runs"])
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert resume_command() == "torchrun --nproc-per-node=2 train.py --outdir=runs --resume=latest"


def test_several_processes_that_torchrun_did_not_start_are_refused(digits, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    output = refused("train", f"--outdir={tmp_path / 'o'}", f"--data={digits}", *TINY)
    assert "SLURM_STEP_NUM_TASKS=2 means that srun" in output and "torchrun --nproc-per-node=GPUS" in output
