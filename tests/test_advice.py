"""The usual wrong command lines of the four programs: each ends in one line, and what that line advises works when typed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from training.checkpoint.snapshot import save_snapshot
from training.config import DiscriminatorConfig, GeneratorConfig, RunConfig
from training.data.stream import ImageDataset
from training.state import TrainState

ROOT = Path(__file__).parents[1]
RUN = "runs/00000-demo-cond-demo-batch8"
NETWORK = f"{RUN}/network-snapshot-000000.pkl"
TINY = ("--cfg=demo --g_dict=16,16,16 --workers=0 --kimg=0.008 --metrics=none --set=generator.z_dim=16 "
        "--set=generator.w_dim=16 --set=discriminator.channel_base=256 --set=discriminator.channel_max=8")  # fmt: skip
TRAIN = f"train --outdir=runs --data=demo.zip {TINY}"
GENERATE = f"generate --network={NETWORK}"
MEASURE = f"calc_metrics --network={NETWORK} --gpus=0 --verbose=0 --cache=cache"
METRIC = "--metrics=proxy_fd_randconv_v1"
REAL = f"--data=demo.zip {METRIC}"
RESIZE = "--width=32 --height=32 --transform=center-crop"
MIX = "--rows=1 --cols=2 --outdir=out"


@pytest.fixture(scope="module")
def workplace(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, an untrained network, and images that cannot be packed as they are."""
    folder = tmp_path_factory.mktemp("workplace")
    shutil.copy(digits, folder / "demo.zip")
    assert run("dataset_tool --source=demo --dest=many.zip --max-images=2000", folder).returncode == 0
    (folder / RUN).mkdir(parents=True)
    config = RunConfig(
        generator=GeneratorConfig(widths=(16, 16, 16), layers=(1, 1, 1), z_dim=16, w_dim=16),
        discriminator=DiscriminatorConfig(channel_base=256, channel_max=8),
    )
    state = TrainState(config, ImageDataset(digits, use_labels=True).spec, torch.device("cpu"))
    save_snapshot(folder / NETWORK, state)
    for name in ("sizes", "clear", "broken"):
        (folder / name).mkdir()
        Image.new("RGB", (32, 32), "red").save(folder / name / "a.png")
    Image.new("RGB", (48, 40), "blue").save(folder / "sizes" / "b.png")
    Image.new("RGBA", (32, 32), (9, 9, 9, 9)).save(folder / "clear" / "b.png")
    (folder / "broken" / "b.png").write_bytes((folder / "broken" / "a.png").read_bytes()[:60])
    return folder


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Type a command line in a folder."""
    script, *words = line.split()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / f"{script}.py"), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)


def slow(*lines: str) -> object:
    return pytest.param(*lines, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (f"{TRAIN} --lr=0.002", f"{TRAIN} --dry-run --set optimizer.g_lr=0.001 --set optimizer.d_lr=0.001"),
        slow(f"{TRAIN} --batch-size=8", f"{TRAIN} --batch=32"),
        slow(f"{TRAIN} --epochs=1", f"{TRAIN} --dry-run --kimg=1000"),
        slow(f"{TRAIN} --cond", f"{TRAIN} --cond=1"),
        slow(f"{TRAIN} --resume=last", f"{TRAIN} --resume=latest"),
        slow(f"{TRAIN} --gpus=4 --batch=6", f"{TRAIN} --gpus=4 --batch=8"),
        slow(f"train --outdir=runs {TINY}", TRAIN),
        slow(f"train --outdir=runs --data=none.zip {TINY}", TRAIN),
        slow("train --outdir=runs --data=sizes", f"dataset_tool --source=sizes --dest=d.zip {RESIZE}"),
        ("dataset_tool --source=sizes --dest=d.zip", f"dataset_tool --source=sizes --dest=d.zip {RESIZE}"),
        ("dataset_tool --source=demo --dest=demo.zip", "dataset_tool --source=demo --dest=demo.zip --force"),
        ("dataset_tool --source=clear --dest=d.zip", "dataset_tool --source=clear --dest=d.zip --background=white"),
        ("dataset_tool --source=broken --dest=d.zip", "dataset_tool --source=broken --dest=d.zip --on-error=skip"),
        ("dataset_tool --source=none --dest=d.zip", "dataset_tool --source=demo --dest=d.zip"),
        slow("dataset_tool --source=demo", "dataset_tool --source=demo --dest=d.zip"),
        ("generate --seeds=0 --outdir=out", f"{GENERATE} --seeds=0 --outdir=out"),
        slow(GENERATE, f"{GENERATE} --seeds=0-35 --outdir=out"),
        slow(f"{GENERATE} --seeds=0", f"{GENERATE} --seeds=0 --outdir=out"),
        slow(f"{GENERATE} mix {MIX}", f"generate mix --network={NETWORK} {MIX}"),
        slow(f"{GENERATE} --seeds=0 --outdir=out --trunk=0.7", f"{GENERATE} --seeds=0 --outdir=out --trunc=0.7"),
        slow(f"{GENERATE} --seeds=0-4 --outdir=out --grid=2x2", f"{GENERATE} --seeds=0-4 --outdir=out --grid=3x2"),
        (MEASURE, "calc_metrics --metrics=list"),
        slow(f"calc_metrics {REAL}", f"{MEASURE} {REAL}"),
        slow(f"calc_metrics --images=many.zip {METRIC}", f"calc_metrics --images=many.zip {REAL}"),
        slow(f"{MEASURE} --data=demo.zip --metrics=proxy_fd_randcon_v1", f"{MEASURE} {REAL}"),
        slow(f"calc_metrics --network={RUN} {REAL}", f"calc_metrics --network={NETWORK} {REAL}"),
    ],
)  # fmt: skip
def test_advice_of_an_error_works_when_typed(wrong: str, right: str, workplace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    shutil.copytree(workplace, folder)
    failed = run(wrong, folder)
    (line,) = failed.stderr.splitlines()
    assert failed.returncode in (1, 2) and line.startswith("Error: ") and "Traceback" not in line
    given = {word.partition("=")[0] for word in f"{wrong} --dry-run --source --dest".split()}
    for word in set(right.split()[1:]) - {*wrong.split(), *MEASURE.split(), *TINY.split()}:
        name, _, value = word.partition("=")
        assert name in line or value in line or name in given, (word, line)
    done = run(right, folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_advice_for_a_folder_as_resume(workplace: Path, tmp_path: Path) -> None:
    """The folder can be resumed, and its snapshot fine-tuned."""
    folder = tmp_path / "here"
    shutil.copytree(workplace, folder)
    shutil.rmtree(folder / "runs")
    assert run(TRAIN, folder).returncode == 0
    (run_dir,) = (folder / "runs").iterdir()
    given = f"runs/{run_dir.name}"
    failed = run(f"{TRAIN.replace('=runs', '=others')} --resume={given}", folder)
    (line,) = failed.stderr.splitlines()
    snapshot = f"--resume={given}/network-snapshot-000000.pkl"
    assert "--outdir=runs --resume=latest" in line and snapshot in line
    resumed, tuned = run(f"{TRAIN} --resume=latest", folder), run(f"{TRAIN} {snapshot}", folder)
    assert (resumed.returncode, tuned.returncode) == (0, 0), resumed.stderr + tuned.stderr
    assert f"Resuming {given}" in resumed.stdout
