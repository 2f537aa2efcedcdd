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
from metrics.weights import INCEPTION, MIRROR_VARIABLE
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


def tiny_config(data: Path, mirror: bool = False) -> RunConfig:
    config = RunConfig(
        generator=GeneratorConfig(widths=(16, 16), layers=(1, 1), z_dim=8, w_dim=16),
        discriminator=DiscriminatorConfig(channel_base=64, channel_max=16),
    )
    return dataclasses.replace(config, data=dataclasses.replace(config.data, path=str(data), mirror=mirror))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small data set and an untrained snapshot that names it."""
    folder = tmp_path_factory.mktemp("run")
    data = write_pictures(folder / "data.zip", 30, seed=0)
    state = TrainState(tiny_config(data), ImageDataset(data).spec, torch.device("cpu"))
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


class Means:
    """In place of the Inception network: the mean of each colour."""

    name, digest, dim, resize, is_published = "means", "none", 3, "none", True

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean(dim=(2, 3))


@pytest.mark.filterwarnings("ignore:a Frechet distance")
@pytest.mark.parametrize(("mirror", "counts"), [([], (60, 30)), (["--mirror=0"], (30, 30)), (["--mirror=1"], (60, 30))])
def test_fid_without_full_flips_as_training_does(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: list[str], counts: tuple[int, int]
) -> None:
    monkeypatch.setitem(registry.DETECTORS, "inception_2015", registry.DetectorKind(lambda context: Means()))
    state = TrainState(
        tiny_config(run_dir / "data.zip", mirror=True), ImageDataset(run_dir / "data.zip").spec, torch.device("cpu")
    )
    save_snapshot(tmp_path / "network-snapshot-000001.pkl", state)
    options = [f"--network={tmp_path / 'network-snapshot-000001.pkl'}", "--metrics=fid20,fid20_full"]
    result = invoke(run_dir, *options, *mirror, f"--cache={tmp_path}")
    assert result.exit_code == 0, result.output
    for name, count in zip(("fid20", "fid20_full"), counts, strict=True):
        row = json.loads((tmp_path / f"metric-{name}.jsonl").read_text())
        assert row["num_real"] == count and row["comparable_to_published"] is True
    assert "not comparable" not in result.output and "two halves" not in result.output


def test_weights_are_asked_for_before_any_work(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(INCEPTION.variable, raising=False)
    network = f"--network={run_dir / 'network-snapshot-000000.pkl'}"
    result = invoke(run_dir, network, "--metrics=fid5k_full,is10k", f"--cache={tmp_path}", "--offline")
    assert result.exit_code == 1
    for part in (
        INCEPTION.name,
        "95,628,359 bytes",
        INCEPTION.sha256,
        "curl -L",
        "--detector=FILE",
        "--offline forbids",
    ):
        assert part in result.output
    result = invoke(run_dir, network, "--metrics=is20", f"--detector={tmp_path / 'none.pth'}")
    assert result.exit_code == 1 and "none.pth: there is no such file" in result.output
    monkeypatch.setenv(MIRROR_VARIABLE, "http://127.0.0.1:9")
    result = invoke(run_dir, network, "--metrics=is20", f"--cache={tmp_path}")
    assert result.exit_code == 1
    assert f"http://127.0.0.1:9/{INCEPTION.name}: " in result.output and INCEPTION.sha256 in result.output
    assert not list(run_dir.glob("metric-*"))


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
        (["--network={run}/network-snapshot-000000.pkl", "--metrics=fid50k_ful"], "choose from fid50k_full"),
        (["--network={run}/network-snapshot-000000.pkl"], "Missing option '--metrics'"),
        (["--metrics=" + NAME], "either --network=FILE or --images=PATH"),
        (["--network=a", "--images=b", "--metrics=" + NAME], "either --network=FILE or --images=PATH"),
        (["--images={run}/data.zip", "--metrics=" + NAME], "--data=PATH"),
        (["--network={run}/none.pkl", "--data={run}/data.zip", "--metrics=" + NAME], "none.pkl: "),
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
