"""generate.py attention, directions, project and nearest: their files and messages, on several kinds of networks."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from image_sets import noise
from PIL import Image
from scripts import generate as run

from dnnlib.images.writer import write_image
from training.checkpoint.snapshot import load_generator, save_snapshot
from training.config import DatasetSpec, RunConfig
from training.state import TrainState

NAME = "official_small_linformer_cond.pkl"
SPECS = {
    "colour": DatasetSpec(16, 16, 3),
    "grey": DatasetSpec(16, 32, 1),
    "classes": DatasetSpec(16, 16, 3, 3, ("red", "green", "blue")),
}


@pytest.fixture(params=SPECS)
def spec(request: pytest.FixtureRequest) -> DatasetSpec:
    return SPECS[request.param]


@pytest.fixture
def network(spec: DatasetSpec, tiny_config: RunConfig, tmp_path: Path) -> Path:
    save_snapshot(tmp_path / "net.pkl", TrainState(tiny_config, spec, torch.device("cpu")))
    return tmp_path / "net.pkl"


of_colour = pytest.mark.parametrize("spec", [SPECS["colour"]])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        array = np.asarray(file)
    return array[:, :, None] if array.ndim == 2 else array


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def cell(sheet: np.ndarray, spec: DatasetSpec, row: int, column: int) -> np.ndarray:
    """An image of a sheet whose first row has captions, at its own size."""
    factor = -(-96 // max(spec.height, spec.width))
    top, left = 4 + 15 + row * (spec.height * factor + 4), 4 + column * (spec.width * factor + 4)
    return sheet[top : top + spec.height * factor : factor, left : left + spec.width * factor : factor]


def test_attention_writes_an_overview_and_a_sheet_a_layer(network: Path, spec: DatasetSpec, tmp_path: Path) -> None:
    run("attention", f"--network={network}", "--seeds=3", f"--outdir={tmp_path / 'out'}", "--points=0,0;15,15")
    layers = [f"attention0003-layer0{index}.png" for index in range(3)]
    assert names(tmp_path / "out") == {"attention0003.png", *layers}
    width = spec.width * -(-96 // max(spec.height, spec.width)) + 4
    assert pixels(tmp_path / "out" / "attention0003.png").shape[1] == 4 + (1 + 3) * width
    heads = [4, 2, 2]
    for name, count in zip(layers, heads, strict=True):
        assert pixels(tmp_path / "out" / name).shape[1] == 4 + (2 + count) * width


def test_directions_have_the_seeds_own_image_in_the_middle(network: Path, spec: DatasetSpec, tmp_path: Path) -> None:
    run("directions", f"--network={network}", "--seeds=0-2", f"--outdir={tmp_path / 'out'}", "--count=2", "--steps=5")
    assert names(tmp_path / "out") == {"directions-00.png", "directions-01.png", "directions.npz"}
    saved = f"--directions={tmp_path / 'out' / 'directions.npz'}"
    run("directions", f"--network={network}", "--seeds=0-2", f"--outdir={tmp_path / 'again'}", "--steps=5", saved)
    assert np.array_equal(*(pixels(tmp_path / folder / "directions-01.png") for folder in ("out", "again")))
    run(f"--network={network}", "--seeds=0-2", f"--outdir={tmp_path / 'seeds'}")
    strip = pixels(tmp_path / "out" / "directions-00.png")
    for seed in range(3):
        middle = cell(strip, spec, seed, 2)
        own = pixels(tmp_path / "seeds" / f"seed000{seed}.png")
        assert np.array_equal(middle, np.broadcast_to(own, middle.shape))
        assert not np.array_equal(cell(strip, spec, seed, 4), middle)


def test_steps_along_directions_are_measured_with_the_label_vectors(tiny_config: RunConfig, tmp_path: Path) -> None:
    spec = DatasetSpec(16, 16, 3, 3, labels_are_vectors=True)
    save_snapshot(tmp_path / "net.pkl", TrainState(tiny_config, spec, torch.device("cpu")))
    spreads = []
    for label in ("0.7,0,0.3", "0,0,0"):
        options = [f"--label={label}", "--count=1", f"--outdir={tmp_path}"]
        run("directions", f"--network={tmp_path / 'net.pkl'}", "--seeds=0", *options)
        spreads.append(np.load(tmp_path / "directions.npz")["spreads"])
    assert not np.allclose(*spreads)


def test_projections_stand_beside_their_targets_and_their_styles_give_them_again(network, spec, tmp_path) -> None:
    run(f"--network={network}", "--seeds=1-2", f"--outdir={tmp_path}")
    targets = [f"--target={tmp_path / name}" for name in ("seed0001.png", "seed0002.png")]
    quick = ["--steps=20", "--candidates=50", "--starts=2"]
    run("project", f"--network={network}", *targets, f"--outdir={tmp_path / 'out'}", *quick, "--animation")
    assert names(tmp_path / "out") == {"proj00.png", "proj01.png", "proj00.webp", "proj01.webp", "projected_w.npz"}
    found = tmp_path / "out" / "projected_w.npz"
    run(f"--network={network}", f"--w={found}", f"--outdir={tmp_path / 'again'}")
    again = sorted((tmp_path / "again").iterdir())
    for index in range(2):
        sheet = pixels(tmp_path / "out" / f"proj0{index}.png")
        own = pixels(tmp_path / f"seed000{index + 1}.png")
        target = cell(sheet, spec, 0, 0)
        assert np.array_equal(target, np.broadcast_to(own, target.shape))
        projection = cell(sheet, spec, 0, 1).astype(int)
        assert np.abs(projection - pixels(again[index])).max() <= 1
        with Image.open(tmp_path / "out" / f"proj0{index}.webp") as file:
            assert 10 < file.n_frames <= 21  # frames that are equal count once


def test_projection_into_w_plus_of_a_class_by_a_published_network(published: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "photo.png", noise(0, 50, 40))
    run(
        "project", f"--network={published / NAME}", f"--target={tmp_path / 'photo.png'}", f"--outdir={tmp_path / 'out'}",
        "--space=w+", "--steps=3", "--candidates=8", "--starts=1", "--class=1",
    )  # fmt: skip
    with np.load(tmp_path / "out" / "projected_w.npz") as arrays:
        generator = load_generator(published / NAME)
        assert arrays["w"].shape == (1, generator.num_ws, generator.w_dim)
        assert not np.array_equal(arrays["w"][0, 0], arrays["w"][0, -1])


@pytest.mark.parametrize("by", ["pixels", "features"])
def test_a_memorised_image_is_found(network: Path, spec: DatasetSpec, tmp_path: Path, by: str) -> None:
    run(f"--network={network}", "--seeds=5", f"--outdir={tmp_path / 'data'}")
    for index in range(12):
        write_image(tmp_path / "data" / f"{index}.png", noise(index, spec.height, spec.width, spec.channels))
    shared = [f"--network={network}", f"--data={tmp_path / 'data'}", f"--by={by}", "--count=3"]
    output = run("nearest", *shared, "--seeds=5,6", f"--outdir={tmp_path / 'out'}")
    assert names(tmp_path / "out") == {"nearest.png"}
    sheet = pixels(tmp_path / "out" / "nearest.png")
    assert np.array_equal(cell(sheet, spec, 0, 0), cell(sheet, spec, 0, 1))
    ratios = {line.split()[1]: float(line.split()[-1]) for line in output.splitlines() if line.startswith("seed ")}
    assert ratios["5"] == 0 and ratios["6"] > 0
    assert "may be copies" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attention", "--points=3"], r"--points=3: write points as y,x in pixels"),
        (["attention", "--points=3,16"], r"--points=3,16: 3,16 is outside of the image; y is 0..15 and x is 0..15"),
        (["attention", "--layers=1-3"], r"--layers: there is no 3 in this network; choose from 0-2"),
        (["directions", "--steps=4"], "--steps=4 must be odd"),
        (["directions", "--count=17"], "--count=17: W has 16 dimensions"),
        (["directions", "--directions=d.npz", "--layers=0"], "leave out --layers and --count"),
        (["directions", "--directions=gone.npz"], "gone.npz: not a directions.npz"),
        (["nearest"], "was trained on may be anywhere; name them with --data=PATH"),
        (["nearest", "--data="], "an empty path was given"),
        (["nearest", "--data={tmp}/data"], "those in .*data have 32x16 px and 1 channels"),
        (["project", "--target={tmp}/gone.png"], "--target=.*gone.png: there is no such file"),
        (["project", "--target={tmp}/data/a.png", "--lpips=gone.pth"], "--lpips=gone.pth: there is no such file; give"),
    ],
)
@of_colour
def test_errors_are_one_line_before_any_work(network, tmp_path, arguments, message) -> None:
    (tmp_path / "data").mkdir()
    Image.new("L", (32, 16)).save(tmp_path / "data" / "a.png")
    command, *rest = (argument.format(tmp=tmp_path) for argument in arguments)
    seeds = [] if command == "project" else ["--seeds=0"]
    output = run(command, f"--network={network}", *seeds, f"--outdir={tmp_path / 'out'}", *rest, ok=False)
    assert re.search(f"^Error: .*{message}.*\n", output, re.MULTILINE)
    assert not (tmp_path / "out").exists()


@of_colour
@pytest.mark.parametrize(
    ("network_part", "command", "message"),
    [
        ("G_ema.synthesis", "project", "the network's images or their features are not finite"),
        ("D", "project", "the network's images or their features are not finite"),
        ("G_ema.mapping", "project", "the network's styles are not finite"),
        ("G_ema.mapping", "directions", "the network's styles are not finite"),
        ("G_ema.synthesis", "attention", "the network's images are not finite"),
        ("D", "nearest", "the features of the network's discriminator are not finite"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(network, spec, tmp_path, network_part, command, message) -> None:
    values = torch.load(network, weights_only=True)
    group, _, prefix = network_part.partition(".")
    for name, tensor in values[group].items():
        if name.startswith(prefix) and tensor.is_floating_point():
            tensor.fill_(float("nan"))
    torch.save(values, tmp_path / "nan.pkl")
    (tmp_path / "data").mkdir()
    for index in range(3):
        write_image(tmp_path / "data" / f"{index}.png", noise(index, spec.height, spec.width))
    options = {
        "project": [f"--target={tmp_path / 'data' / '0.png'}", "--steps=1", "--candidates=3"],
        "nearest": ["--seeds=0", f"--data={tmp_path / 'data'}", "--by=features"],
    }
    output = run(
        command, f"--network={tmp_path / 'nan.pkl'}", f"--outdir={tmp_path / 'out'}",
        *options.get(command, ["--seeds=0"]), ok=False,
    )  # fmt: skip
    assert message in output and "use an earlier snapshot" in output
    assert not (tmp_path / "out").exists() or not names(tmp_path / "out")


@of_colour
def test_broken_real_images_are_named(network: Path, spec: DatasetSpec, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for index in range(4):
        write_image(tmp_path / "data" / f"{index}.png", noise(index, spec.height, spec.width))
    with open(tmp_path / "data" / "2.png", "r+b") as file:
        file.truncate(200)
    options = [f"--network={network}", f"--data={tmp_path / 'data'}", f"--outdir={tmp_path}"]
    output = run("nearest", *options, "--seeds=0", "--count=2")
    assert output.count("2.png") == 1 and re.search(r"Warning: .*2\.png.*; 3\.png is used in its place", output)


@of_colour
def test_directions_of_another_network_are_refused(network: Path, published: Path, tmp_path: Path) -> None:
    shared = ["--seeds=0", f"--outdir={tmp_path}"]
    run("directions", f"--network={network}", *shared, "--count=1")
    saved = f"--directions={tmp_path / 'directions.npz'}"
    output = run("directions", f"--network={published / NAME}", *shared, saved, ok=False)
    assert "directions.npz: directions of 16 dimensions" in output
