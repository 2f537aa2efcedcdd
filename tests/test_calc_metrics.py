"""calc_metrics.py as people run it."""

import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from image_sets import write_pixels
from PIL import Image

import calc_metrics
from metrics import registry
from metrics.detectors import Detector, DetectorKind
from metrics.weights.published import FILES, INCEPTION, MIRROR_VARIABLE
from training.checkpoint.snapshot import save_snapshot
from training.checkpoint.state_file import state_values, write_state
from training.config import DiscriminatorConfig, GeneratorConfig, RunConfig
from training.data.stream import ImageDataset
from training.state import TrainState

NAME = "proxy_fd_randconv_v1"
SNAPSHOT = "network-snapshot-000000.pkl"


def write_images(path: Path, count: int, seed: int, size: int = 16, channels: int = 3) -> Path:
    images = np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), dtype=np.uint8)
    return write_pixels(path, images)


def tiny_config(data: Path, mirror: bool = False) -> RunConfig:
    config = RunConfig(
        generator=GeneratorConfig(widths=(16, 16), layers=(1, 1), z_dim=8, w_dim=16),
        discriminator=DiscriminatorConfig(channel_base=64, channel_max=16),
    )
    return config.changed(data={"path": str(data), "mirror": mirror})


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small data set and an untrained snapshot that names it."""
    folder = tmp_path_factory.mktemp("run")
    write_snapshot(folder / SNAPSHOT, write_images(folder / "data.zip", 30, seed=0))
    return folder


def write_snapshot(path: Path, data: Path, mirror: bool = False) -> Path:
    state = TrainState(tiny_config(data, mirror), ImageDataset(data).spec, torch.device("cpu"))
    save_snapshot(path, state)
    return path


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.METRICS, NAME, dataclasses.replace(registry.METRICS[NAME], num_gen=60))


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (MIRROR_VARIABLE, *(file.variable for file in FILES.values())):
        monkeypatch.delenv(name, raising=False)


def invoke(run_dir: Path, *arguments: str) -> Result:
    return CliRunner().invoke(calc_metrics.main, [f"--cache={run_dir / 'cache'}", "--device=cpu", *arguments])


def measure(run_dir: Path, *arguments: str, metrics: str = NAME) -> str:
    """Run without an error and return what is printed."""
    result = invoke(run_dir, f"--metrics={metrics}", *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def rows(folder: Path, name: str = NAME) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"metric-{name}.jsonl").read_text().splitlines()]


def test_in_a_process_of_its_own(run_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, calc_metrics.__file__, f"--network={run_dir / SNAPSHOT}"]
    command += [f"--metrics={NAME}", "--gpus=0", f"--outdir={tmp_path / 'new'}"]
    environment = {**os.environ, "STYLEFORMER_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = rows(tmp_path / "new")
    assert f"{row['value']:.4g}" in done.stdout and f"{row['floor']:.4g}" in done.stdout
    assert "2,000" in done.stdout and "not comparable to published numbers" in done.stdout
    assert "Warning: a Frechet distance of 256 features" in done.stderr
    assert not (run_dir / f"metric-{NAME}.jsonl").exists()


def test_values_are_recorded_beside_the_snapshot_and_repeat(run_dir: Path) -> None:
    network = f"--network={run_dir / SNAPSHOT}"
    for options in (["--batch=7"], ["--batch=64", "--gpus=1"], ["--seed=1"]):
        measure(run_dir, network, f"--data={run_dir / 'data.zip'}", *options)
    first, second, other = rows(run_dir)
    assert second["value"] == pytest.approx(first["value"], rel=1e-5)
    assert other["value"] != first["value"]
    assert first["snapshot"] == "network-snapshot-000000.pkl" and len(first["snapshot_hash"]) == 64
    assert first["num_real"] == 30
    (run_dir / f"metric-{NAME}.jsonl").unlink()


def means(images: torch.Tensor) -> torch.Tensor:
    return images.float().mean(dim=(2, 3)).expand(-1, 3)


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectors that need no weights, in place of those that do: the mean of each colour."""
    detector = Detector("means", means, 3, "none", "none", is_published=True)
    for key, kind in registry.DETECTORS.items():
        if kind.readers:
            monkeypatch.setitem(registry.DETECTORS, key, DetectorKind(lambda context: detector))


@pytest.mark.filterwarnings("ignore:a Frechet distance")
@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize(("mirror", "counts"), [([], (60, 30)), (["--mirror=0"], (30, 30)), (["--mirror=1"], (60, 30))])
def test_fid_without_full_flips_as_training_does(run_dir, tmp_path, mirror, counts):
    network = write_snapshot(tmp_path / "network-snapshot-000001.pkl", run_dir / "data.zip", mirror=True)
    output = measure(run_dir, f"--network={network}", *mirror, f"--cache={tmp_path}", metrics="fid20,fid20_full")
    for name, count in zip(("fid20", "fid20_full"), counts, strict=True):
        (row,) = rows(tmp_path, name)
        assert row["num_real"] == count and row["comparable_to_published"] is True
    assert "comparable" not in output and "two halves" not in output


def test_list_explains_every_metric(run_dir: Path) -> None:
    output = invoke(run_dir, "--metrics=list").output
    assert all(name in output and metric.definition in output for name, metric in registry.METRICS.items())


NETWORK = "--network={run}/network-snapshot-000000.pkl"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([NETWORK, "--metrics=fid50k_ful"], "choose from fid50k_full"),
        ([NETWORK], "--metrics is missing; write --metrics=LIST"),
        (["--metrics=" + NAME], "either --network=FILE or --images=PATH"),
        (["--network=a", "--images=b", "--metrics=" + NAME], "either --network=FILE or --images=PATH"),
        (["--images={run}/data.zip", "--metrics=" + NAME], "--data=PATH"),
        (["--network={run}/none.pkl", "--data={run}/data.zip", "--metrics=" + NAME], "none.pkl: "),
        ([NETWORK, "--data={run}/x", "--metrics=" + NAME], "x does not exist"),
        ([NETWORK, "--data=", "--metrics=" + NAME], "an empty path was given"),
        ([NETWORK, "--device=abc", "--metrics=" + NAME], "no such device"),
        ([NETWORK, "--device=cuda:7", "--metrics=" + NAME], "--device=cuda:7: PyTorch sees 2 GPUs here"),
        ([NETWORK, "--gpus=2", "--device=cuda", "--metrics=" + NAME], "which contradicts --gpus=2"),
        ([NETWORK, "--gpus=0", "--device=cuda", "--metrics=" + NAME], "which contradicts --gpus=0"),
        ([NETWORK, "--metrics=proxy_fd_clf_v1"], "has no class labels"),
        ([NETWORK, "--repeat=0", "--metrics=" + NAME], "--repeat: 0 is not in the range"),
        (
            [NETWORK, "--metrics=fid20_full,pr203_full", "--detector=own.pth"],
            "these metrics use inception, vgg16; write",
        ),
        ([NETWORK, "--metrics=ppl2_20_wend", "--detector=own.pth"], "these metrics use vgg16, lpips; write"),
        ([NETWORK, "--detector=dinov2=own.pth", "--metrics=" + NAME], "these metrics use no weights"),
        ([NETWORK, "--metrics=fid20_full", "--detector=a.pth", "--detector=inception=b.pth"], "once for each"),
        ([NETWORK, "--detector-module=own.pt", "--metrics=" + NAME], "is for the metrics fd_module and kd_module"),
    ],
)
def test_mistakes_are_named(run_dir, monkeypatch, options, message) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    result = invoke(run_dir, *(option.format(run=run_dir) for option in options))
    assert result.exit_code in (1, 2) and isinstance(result.exception, SystemExit)
    assert message in " ".join(result.output.split())
    assert not list(run_dir.glob("metric-*"))


def test_each_machine_of_torchrun_needs_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="PyTorch sees 2 GPUs"):
        calc_metrics.choose_device(None, None, 8)


def refuse(run_dir: Path, folder: Path, options: list[str], *parts: str) -> None:
    """Run into an error: one message with these parts; no values and nothing of real images are left anywhere."""
    places = {"run": run_dir, "tmp": folder, "snapshot": run_dir / SNAPSHOT, "data": run_dir / "data.zip"}
    given = [option.format(**places) for option in options]
    result = invoke(run_dir, f"--cache={folder / 'cache'}", f"--outdir={folder / 'out'}", *given)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
    for part in parts:
        assert part.format(**places) in result.output
    assert "Traceback" not in result.output
    assert not [path for pattern in ("real-*", "metric-*") for path in folder.rglob(pattern)]
    assert not list(run_dir.glob("metric-*"))


def test_unusable_weights(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save([1, 2], tmp_path / "own.pth")
    options, message = ["--network={snapshot}", "--metrics=is20,fid20_full"], "has a list where named tensors"
    refuse(run_dir, tmp_path, [*options, "--detector={tmp}/own.pth"], "{tmp}/own.pth", message)
    monkeypatch.setenv(INCEPTION.variable, str(tmp_path / "own.pth"))
    refuse(run_dir, tmp_path, options, "{tmp}/own.pth", message)
    monkeypatch.setenv(INCEPTION.variable, str(tmp_path / "gone.pth"))
    refuse(run_dir, tmp_path, options, "$STYLEFORMER_INCEPTION={tmp}/gone.pth: there is no such file")


@pytest.mark.parametrize(
    ("metric", "key"), [("fid20_full", "inception"), ("pr203_full", "vgg16"), ("kd_dinov2_20_full", "dinov2")]
)
def test_weights_missing_or_of_another_hash(run_dir: Path, tmp_path: Path, metric: str, key: str) -> None:
    options, file = ["--network={snapshot}", f"--metrics={metric}"], FILES[key]
    facts = (file.name, f"{file.num_bytes:,} bytes", file.sha256, f"curl -L --create-dirs -o {{tmp}}/cache/{file.name}")
    refuse(run_dir, tmp_path, [*options, "--offline"], "and --offline forbids", f"--detector={key}=FILE", *facts)
    refuse(run_dir, tmp_path, [*options, f"--detector={key}={{tmp}}/x"], "{tmp}/x: there is no such file", file.what)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / file.name).write_bytes(b"another")
    refuse(run_dir, tmp_path, options, "is not the published file: it has 7 bytes", "Delete it", *facts)
    assert (tmp_path / "cache" / file.name).read_bytes() == b"another"


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize(
    ("metric", "real", "fake", "message"),
    [
        ("pr43_full", 3, 4, "the real set has 3 images; this metric takes at least 4"),
        ("pr43_full", 4, 3, "has 3 images, but 4 generated ones are needed; metrics of its kind take at least 4"),
        ("pr503_full", 4, 4, "choose pr43_full"),
        ("is50k", 30, 12, "choose is12"),
        ("fid20_full", 1, 20, "the real set has 1 images"),
        (NAME, 3, 60, "the real set has 3 images; this metric takes at least 4"),
        (NAME, 30, 30, "this metric is for that number only"),
        ("all-light", 30, 30, "fid5k_full: {tmp}/fake.zip has 30 images, but 5000 generated ones are needed"),
        ("ppl2_20_wend", 30, 30, "it takes --network, not"),
    ],
)
def test_too_few_images(run_dir: Path, tmp_path: Path, metric: str, real: int, fake: int, message: str) -> None:
    write_images(tmp_path / "real.zip", real, seed=0)
    write_images(tmp_path / "fake.zip", fake, seed=1)
    options = ["--data={tmp}/real.zip", "--images={tmp}/fake.zip", f"--metrics={metric}"]
    refuse(run_dir, tmp_path, options, message)


@pytest.mark.parametrize(
    ("option", "inside"),
    [("--outdir={tmp}/data/results", "data"), ("--cache={tmp}/data", "data"), ("--outdir={tmp}/images", "images")],
)
def test_nothing_is_written_among_the_images(run_dir: Path, tmp_path: Path, option: str, inside: str) -> None:
    options = ["--images={tmp}/images", "--data={tmp}/data", f"--metrics={NAME}", option]
    for name in ("data", "images"):
        (tmp_path / name).mkdir()
    refuse(run_dir, tmp_path, options, f"lies inside --{inside}={{tmp}}")


def test_images_of_another_size_or_kind(run_dir: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "large.zip", 60, seed=0, size=32)
    write_images(tmp_path / "grey.zip", 60, seed=0, channels=1)
    for name, found in {"large": "32x32 px and 3 channels", "grey": "16x16 px and 1 channels"}.items():
        options = ["--network={snapshot}", f"--data={{tmp}}/{name}.zip", f"--metrics={NAME}"]
        refuse(run_dir, tmp_path, options, "makes images of 16x16 px with 3", f"{{tmp}}/{name}.zip have", found)
    options = ["--images={tmp}/large.zip", "--data={data}", f"--metrics={NAME}"]
    refuse(run_dir, tmp_path, options, "--images={tmp}/large.zip has images of", "they must agree")
    options = ["--images={data}", "--data={tmp}/grey.zip", f"--metrics={NAME}"]
    refuse(run_dir, tmp_path, options, "--images={data} has images of", "they must agree")
    options = [f"--images={tmp_path / 'grey.zip'}", f"--data={run_dir / 'data.zip'}", f"--metrics={NAME}"]
    assert f"grey images of {tmp_path / 'grey.zip'} are read as RGB\n" in invoke(run_dir, *options).output


@pytest.mark.usefixtures("stand_ins")
def test_two_data_sets(run_dir: Path, tmp_path: Path) -> None:
    """A folder and a zip of the same images are the same set, at no distance from each other."""
    write_images(tmp_path / "folder", 60, seed=0)
    write_images(tmp_path / "same.zip", 60, seed=0)
    write_images(tmp_path / "other.zip", 60, seed=1)
    for images in ("folder", "same.zip", "other.zip"):
        options = [f"--data={tmp_path / 'same.zip'}", f"--images={tmp_path / images}", f"--cache={tmp_path}"]
        output = measure(run_dir, *options, f"--outdir={tmp_path}", metrics="fid60_full,pr603_full")
        assert ("From the cache: the features of the real images" in output) == (images != "folder")
    folder, same, other = rows(tmp_path, "fid60_full")
    assert abs(folder["value"]) < 1e-6 and abs(same["value"]) < 1e-6 and other["value"] > 1e-3
    assert folder["snapshot_hash"] == same["snapshot_hash"] == same["real_hash"] != other["snapshot_hash"]
    assert [row["snapshot"] for row in (folder, same, other)] == ["folder", "same.zip", "other.zip"]
    assert rows(tmp_path, "pr603_full")[0]["details"] == {"precision": 1.0, "recall": 1.0}


@pytest.mark.usefixtures("stand_ins")
def test_a_part_of_the_images_is_named(run_dir: Path, tmp_path: Path) -> None:
    options = [f"--data={run_dir / 'data.zip'}", f"--images={run_dir / 'data.zip'}", f"--outdir={tmp_path}"]
    line = f"Generated images: the first 20 and 25 of 30 in {run_dir / 'data.zip'}, in the order of their names\n"
    assert line in measure(run_dir, *options, metrics="fid20_full,fid25_full,fid30_full")
    assert "Generated images:" not in measure(run_dir, *options, metrics="fid30_full")


def test_values_name_the_real_set_and_whether_the_network_was_trained_on_it(run_dir: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "data.zip", 30, seed=0)
    write_images(tmp_path / "other.zip", 30, seed=9)
    dataset = ImageDataset(tmp_path / "data.zip")
    content_hash = dataset.content_hash()
    state = TrainState(tiny_config(tmp_path / "data.zip"), dataset.spec, torch.device("cpu"))
    save_snapshot(tmp_path / SNAPSHOT, state, content_hash)

    def relation(data: str) -> bool | None:
        output = measure(run_dir, f"--network={tmp_path / SNAPSHOT}", f"--data={tmp_path / data}")
        row = rows(tmp_path)[-1]
        assert row["real_path"] == str(tmp_path / data) in output and len(row["real_hash"]) == 64
        assert ("NOT what the network was trained on" in output) == (row["real_is_training_set"] is False)
        return row["real_is_training_set"]

    shutil.copy(tmp_path / "data.zip", tmp_path / "copy.zip")
    assert [relation(name) for name in ("data.zip", "copy.zip", "other.zip")] == [True, True, False]
    save_snapshot(tmp_path / SNAPSHOT, state)  # as older versions did: the training state beside it tells
    write_state(tmp_path, state_values(state, content_hash))
    shutil.move(tmp_path / "other.zip", tmp_path / "data.zip")  # another set under the same name: its content tells
    assert [relation(name) for name in ("data.zip", "copy.zip")] == [False, True]
    for path in tmp_path.glob("training-state*"):
        path.unlink()
    assert relation("copy.zip") is None and relation("data.zip") is None


def test_a_training_set_of_which_a_part_was_used(run_dir: Path, tmp_path: Path) -> None:
    config = tiny_config(run_dir / "data.zip").changed(data={"subset": 12})
    trained = ImageDataset(run_dir / "data.zip", max_images=12, seed=config.schedule.seed)
    state = TrainState(config, trained.spec, torch.device("cpu"))
    save_snapshot(tmp_path / SNAPSHOT, state, trained.content_hash())
    output = measure(run_dir, f"--network={tmp_path / SNAPSHOT}")
    assert f"{run_dir / 'data.zip'}, the training set, with 18 images that were not used\n" in output
    assert rows(tmp_path)[0]["num_real"] == 30


def test_repeat_measures_several_seeds(run_dir: Path, tmp_path: Path) -> None:
    options = [f"--network={run_dir / SNAPSHOT}", f"--outdir={tmp_path}"]
    output = measure(run_dir, *options, "--seed=5", "--repeat=3")
    assert "Means and standard deviations over 3 seeds, 5 to 7." in output
    measure(run_dir, *options, "--seed=6")
    *several, single = rows(tmp_path)
    values = [row["value"] for row in several]
    assert [row["seed"] for row in several] == [5, 6, 7] and len(set(values)) == 3
    assert single["value"] == pytest.approx(values[1], rel=1e-9)
    (line,) = (line.split() for line in output.splitlines() if line.startswith(f"{NAME} "))
    assert line[1:3] == [f"{statistics.mean(values):.4g}", f"{statistics.stdev(values):.3g}"]


def test_a_published_network_is_not_compared_with_the_current_folder(published, tmp_path, monkeypatch) -> None:
    """It was trained on data.zip; the current folder has images of its size, but no data.zip."""
    monkeypatch.chdir(write_images(tmp_path / "here", 30, seed=0, size=32))
    network = f"--network={published / 'official_small.pkl'}"
    missing = f"was trained on are not at {Path('data.zip').absolute()}"
    refuse(tmp_path, tmp_path, [network, f"--metrics={NAME}"], missing, "--data=PATH")
    write_images(Path("data.zip"), 20, seed=1, size=32)
    measure(tmp_path, network, f"--outdir={tmp_path}")
    assert rows(tmp_path)[0]["num_real"] == 20


def test_an_outdir_that_cannot_be_written_is_refused_before_measuring(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "rows" / f"metric-{NAME}.jsonl").mkdir(parents=True)
    for outdir in (tmp_path / "file", tmp_path / "file" / "part", tmp_path / "rows"):
        result = invoke(run_dir, f"--network={run_dir / SNAPSHOT}", f"--metrics={NAME}", f"--outdir={outdir}")
        message = " ".join(result.output.split())
        assert result.exit_code == 2 and f"--outdir={outdir}: metric-*.jsonl cannot be written there" in message


def test_a_value_that_cannot_be_saved_is_shown(run_dir: Path, tmp_path: Path) -> None:
    """In the folder of the snapshot one may not be allowed to write."""
    network = Path(shutil.copy(run_dir / SNAPSHOT, tmp_path))
    (tmp_path / f"metric-{NAME}.jsonl").mkdir()
    result = invoke(run_dir, f"--network={network}", f"--metrics={NAME}", "--repeat=2")
    assert result.exit_code == 0 and "2 seeds, 0 to 1" in result.output and f"{NAME} " in result.output
    assert "results were not saved" in result.output and "name another folder with --outdir=DIR" in result.output


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_grids_and_other_files_among_the_images_are_left_out(run_dir: Path, tmp_path: Path, suffix: str) -> None:
    images = write_images(tmp_path / "images", 60, seed=1)
    options = [f"--images={images}", f"--data={run_dir / 'data.zip'}", f"--outdir={tmp_path}"]
    assert "Left out" not in measure(run_dir, *options)
    for name in ("1.heic", "notes.txt", "@eaDir/x.jpg"):
        (images / name).parent.mkdir(exist_ok=True)
        (images / name).touch()
    Image.new("RGB", (160, 96)).save(images / f"grid.{suffix}")
    before = sorted(images.rglob("*"))
    lines = measure(run_dir, *options).splitlines()
    assert lines.count(f"Left out: grid.{suffix} (image grids)") == 1
    assert lines.count(f"Left out of {images}: 1 .heic, 1 .txt, 1 @eaDir") == 1
    first, second = rows(tmp_path)
    assert second["snapshot_hash"] == first["snapshot_hash"] and second["snapshot"] == "images"
    assert second["value"] == pytest.approx(first["value"], rel=1e-9)
    assert sorted(images.rglob("*")) == before


def test_only_grids_are_left_out(run_dir: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 59, seed=1)
    options = [f"--images={images}", f"--data={run_dir / 'data.zip'}"]
    Image.new("RGB", (16, 16)).save(images / "grid.png")  # of the same size: one of the 60
    assert "Left out" not in measure(run_dir, *options)
    Image.new("RGB", (160, 96)).save(images / "grid.png")
    refuse(run_dir, tmp_path, [*options, f"--metrics={NAME}"], f"{images} has 59 images")


def test_weights_are_named_by_network(run_dir: Path, tmp_path: Path) -> None:
    """One file needs no name where one network is used; a name may be given all the same, and = may be in a path."""
    torch.save({"weight": torch.zeros(2)}, tmp_path / "a=b.pth")
    for prefix in ("", "inception="):
        options = ["--network={snapshot}", "--metrics=is20", f"--detector={prefix}{{tmp}}/a=b.pth"]
        refuse(run_dir, tmp_path, options, "{tmp}/a=b.pth is not the Inception network")
    options = ["--network={snapshot}", "--metrics=pr203_full", "--detector=vgg16={tmp}/a=b.pth"]
    refuse(run_dir, tmp_path, options, "{tmp}/a=b.pth is not the VGG16 network")
