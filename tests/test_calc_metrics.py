"""calc_metrics.py as people run it."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import calc_metrics
from dnnlib.dataset_archive import write_dataset
from dnnlib.picture import encode_png
from metrics import registry
from training.checkpoint import save_snapshot
from training.config import DiscriminatorConfig, GeneratorConfig, RunConfig
from training.dataset import ImageDataset
from training.state import TrainState

NAME = "proxy_fd_randconv_v1"


def write_pictures(path: Path, count: int, seed: int, size: int = 16) -> Path:
    with write_dataset(path) as writer:
        for pixels in np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8):
            writer.add(encode_png(pixels), None)
    return path


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small data set and an untrained snapshot that names it."""
    folder = tmp_path_factory.mktemp("run")
    data = write_pictures(folder / "data.zip", 30, seed=0)
    config = RunConfig(
        generator=GeneratorConfig(widths=(16, 16), layers=(1, 1), z_dim=8, w_dim=16),
        discriminator=DiscriminatorConfig(channel_base=64, channel_max=16),
    )
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=str(data)))
    state = TrainState(config, ImageDataset(data).spec, torch.device("cpu"))
    save_snapshot(folder / "network-snapshot-000000.pkl", state)
    return folder


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = dataclasses.replace(registry.METRICS[NAME], num_gen=60)
    monkeypatch.setitem(registry.METRICS, NAME, metric)


def invoke(run_dir: Path, *arguments: str) -> Result:
    return CliRunner().invoke(calc_metrics.main, [f"--cache={run_dir / 'cache'}", "--device=cpu", *arguments])


def rows(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / f"metric-{NAME}.jsonl").read_text().splitlines()]


def test_in_a_process_of_its_own(run_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, calc_metrics.__file__, f"--network={run_dir / 'network-snapshot-000000.pkl'}"]
    command += [f"--metrics={NAME}", "--gpus=0", f"--outdir={tmp_path / 'new'}"]
    environment = {**os.environ, "STYLEFORMER_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = rows(tmp_path / "new")
    assert f"{row['value']:.4g}" in done.stdout and f"{row['floor']:.4g}" in done.stdout
    assert "2,000" in done.stdout and "not comparable to published numbers" in done.stdout
    assert "Warning: a Frechet distance of 256 features" in done.stderr
    assert not (run_dir / f"metric-{NAME}.jsonl").exists()


def test_values_are_recorded_beside_the_snapshot_and_repeat(run_dir: Path, tmp_path: Path) -> None:
    network = f"--network={run_dir / 'network-snapshot-000000.pkl'}"
    for options in (["--batch=7"], ["--batch=64", "--gpus=1"], ["--seed=1"]):
        result = invoke(run_dir, network, f"--data={run_dir / 'data.zip'}", f"--metrics={NAME}", *options)
        assert result.exit_code == 0, result.output
    first, second, other = rows(run_dir)
    assert second["value"] == pytest.approx(first["value"], rel=1e-5)
    assert other["value"] != first["value"]
    assert first["snapshot"] == "network-snapshot-000000.pkl" and len(str(first["snapshot_hash"])) == 64
    assert first["num_real"] == 30
    (run_dir / f"metric-{NAME}.jsonl").unlink()


def test_mirror_doubles_the_real_pictures(run_dir: Path, tmp_path: Path) -> None:
    network = f"--network={run_dir / 'network-snapshot-000000.pkl'}"
    assert invoke(run_dir, network, f"--metrics={NAME}", "--mirror=1", f"--outdir={tmp_path}").exit_code == 0
    assert rows(tmp_path)[0]["num_real"] == 60


def test_folder_of_pictures_in_place_of_a_network(run_dir: Path, tmp_path: Path) -> None:
    images = write_pictures(tmp_path / "images", 70, seed=1)
    options = [f"--images={images}", f"--metrics={NAME}", f"--data={run_dir / 'data.zip'}"]
    result = invoke(run_dir, *options, f"--outdir={tmp_path}")
    assert result.exit_code == 0, result.output
    assert rows(tmp_path)[0]["snapshot"] == "images"
    before = sorted(images.rglob("*"))
    assert invoke(run_dir, *options).exit_code == 0
    assert sorted(images.rglob("*")) == before


def test_list_explains_every_metric(run_dir: Path) -> None:
    output = invoke(run_dir, "--metrics=list").output
    assert all(name in output and metric.definition in output for name, metric in registry.METRICS.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--network={run}/network-snapshot-000000.pkl", "--metrics=fid50k_full"], f"choose from {NAME}"),
        (["--network={run}/network-snapshot-000000.pkl"], "Missing option '--metrics'"),
        (["--metrics=" + NAME], "either --network=FILE or --images=PATH"),
        (["--network=a", "--images=b", "--metrics=" + NAME], "either --network=FILE or --images=PATH"),
        (["--images={run}/data.zip", "--metrics=" + NAME], "--data=PATH"),
        (["--network={run}/none.pkl", "--data={run}/data.zip", "--metrics=" + NAME], "none.pkl: there is no such file"),
        (["--network={run}/network-snapshot-000000.pkl", "--data={run}/x", "--metrics=" + NAME], "x does not exist"),
        (["--network={run}/network-snapshot-000000.pkl", "--device=abc", "--metrics=" + NAME], "no such device"),
        (["--network={run}/network-snapshot-000000.pkl", "--device=cuda:99", "--metrics=" + NAME], "GPUs here"),
        (["--network={run}/network-snapshot-000000.pkl", "--metrics=proxy_fd_democlf_v1"], "demo digits only"),
    ],
)
def test_mistakes_are_named(run_dir: Path, options: list[str], message: str) -> None:
    result = invoke(run_dir, *(option.format(run=run_dir) for option in options))
    assert result.exit_code != 0 and not isinstance(result.exception, ValueError)
    assert message in result.output
    assert not list(run_dir.glob("metric-*"))


def test_pictures_of_another_size_are_refused(run_dir: Path, tmp_path: Path) -> None:
    large = write_pictures(tmp_path / "large.zip", 5, seed=0, size=32)
    result = invoke(
        run_dir, f"--network={run_dir / 'network-snapshot-000000.pkl'}", f"--data={large}", f"--metrics={NAME}"
    )
    assert result.exit_code == 1 and "16x16 px with 3 channels" in result.output
    result = invoke(run_dir, f"--images={large}", f"--data={run_dir / 'data.zip'}", f"--metrics={NAME}")
    assert result.exit_code == 2 and "they must agree" in result.output
