"""The command lines of generate.py for images of seeds: files, tables, animations, messages."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scripts
import torch
from PIL import Image
from scripts import generate as run

from sampling.renderer import Renderer
from training.checkpoint.snapshot import save_snapshot
from training.config import DataConfig, DatasetSpec
from training.state import TrainState


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB")).astype(int)


def test_styles_written_and_read_give_the_same_files(snapshot: Path, tmp_path: Path) -> None:
    run(f"--network={snapshot}", "--seeds=3,1,3,4", "--class=blue", "--trunc=0.8", f"--outdir={tmp_path}", "--save-w")
    run(f"--network={snapshot}", f"--w={tmp_path / 'w.npz'}", f"--outdir={tmp_path / 'again'}", "--grid=1x3")
    for index, seed in enumerate((3, 1, 4)):
        again = tmp_path / "again" / f"w{index:04d}.png"
        assert again.read_bytes() == (tmp_path / f"seed{seed:04d}.png").read_bytes()
    assert pixels(tmp_path / "again" / "grid.png").shape == (16, 48, 3)
    output = run(f"--network={snapshot}", f"--projected-w={tmp_path / 'w.npz'}", "--seeds=1", "--outdir=o", ok=False)
    assert "has the styles already: leave out --seeds" in output


def test_class_grid_and_its_errors(snapshot: Path, published: Path, tmp_path: Path) -> None:
    run("classes", f"--network={snapshot}", "--seeds=5,7", "--classes=2,red", f"--outdir={tmp_path}", "--batch=1")
    run(f"--network={snapshot}", "--seeds=5,7", "--class=2", f"--outdir={tmp_path}", "--batch=1")
    assert np.array_equal(pixels(tmp_path / "classes.png")[16:, :16], pixels(tmp_path / "seed0007.png"))
    output = run(
        "classes", f"--network={published / 'official_small.pkl'}", "--seeds=0", f"--outdir={tmp_path / 'o'}", ok=False
    )
    assert "this network was trained without classes" in output and not (tmp_path / "o").exists()


@pytest.mark.parametrize(("suffix", "scale"), [("webp", 1), ("gif", 2)])
def test_animation_has_its_frames_and_the_seeds_images(snapshot: Path, tmp_path: Path, suffix: str, scale: int) -> None:
    path = tmp_path / "deeper" / f"walk.{suffix}"
    arguments = [f"--network={snapshot}", "--batch=1", "--class=1"]
    run("interpolate", *arguments, "--seeds=0-2", "--frames=4", "--fps=10", f"--out={path}", f"--scale={scale}")
    run(*arguments, "--seeds=0-2", f"--outdir={tmp_path}")
    with Image.open(path) as animation:
        assert animation.size == (16 * scale, 16 * scale)
        assert (animation.n_frames, animation.info["loop"]) == (9, 0)  # type: ignore[attr-defined]
        for seed in range(3):
            animation.seek(4 * seed)
            shown = np.asarray(animation.convert("RGB")).astype(int)[::scale, ::scale]
            assert animation.info["duration"] == 100
            differences = [abs(shown - pixels(tmp_path / f"seed{other:04d}.png")).mean() for other in range(3)]
            assert np.argmin(differences) == seed
            assert differences[seed] <= (0 if suffix == "webp" else 16)  # an untrained network shows many colours


def test_the_command_comes_before_its_options(snapshot: Path) -> None:
    line = f"the command comes first, then all options: python generate.py mix --network={snapshot} --rows=0"
    assert line in scripts.run("generate", f"--network={snapshot}", "mix", "--rows=0", ok=False)
    output = run(f"--network={snapshot}", "--seeds=0", "--outdir", "mix", "mix", ok=False)
    line = f"python generate.py mix --network={snapshot} --seeds=0 --outdir mix"
    assert f"{line} (without --seeds, which mix does not have)" in output.replace("main mix", "generate.py mix")
    assert "No such command 'images'" in run("--seeds=0", "images", ok=False)
    assert "--network is missing; write --network=FILE" in run("--seeds=0", ok=False)
    assert "--rows is missing; write --rows=LIST" in run("mix", f"--network={snapshot}", ok=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds=0", "--outdir={file}"], "file is a file; name a folder"),
        (
            ["--seeds=0", "--outdir={dangling}/o"],
            "dangling is a link to gone, which does not exist; name another folder",
        ),
        (["--seeds=0", "--outdir={file}/deeper"], "file is a file; name a folder"),
        (["mix", "--rows=0", "--cols=1", "--outdir={file}"], "file is a file"),
        (["--seeds=0", "--outdir={folder}/" + "x" * 300], "cannot be used (File name too long)"),
        (["interpolate", "--seeds=0-1", "--out={folder}"], "is a folder; name a file"),
        (["interpolate", "--seeds=0-1", "--out={file}/walk.gif"], "file is a file"),
        (["--seeds=0", "--outdir={folder}/o", "--trunc=nan"], "is not in the range -1000..1000"),
        (["directions", "--seeds=0", "--outdir={folder}/o", "--strength=inf"], "is not in the range -1000..1000"),
        (["truncation", "--seeds=0", "--outdir={folder}/o", "--psi=0,1e308"], "1e+308 is not in the range"),
        (["interpolate", "--seeds=0-1", "--frames=100000000"], "--frames"),
        (["--seeds=0", "--outdir={folder}/o", "--batch=1000000000000000000000"], "--batch"),
        (["--seeds=0", "--outdir={folder}/o", "--label=1,2"], "--label=1,2 has 2 numbers"),
        (["project", "--target={file}", "--outdir={folder}/o", "--candidates=1000000000"], "--candidates"),
        (["--seeds=0", "--export={folder}/x.pkl"], "leave out --seeds"),
        (["--export={folder}/x.zip"], "must end in .pkl"),
        (["--seeds=0-2047", "--grid=2048x1", "--format=webp", "--outdir={folder}/o"], "limited to 16383 px per side"),
        (["mix", "--rows=0-2047", "--cols=0", "--format=webp", "--outdir={folder}/o"], "limited to 16383 px per side"),
        (["mix", "--rows=0", "--cols=1", "--col-styles=4", "--outdir={folder}/o"], "there is no style 4"),
        (["interpolate", "--seeds=0-2", "--out={folder}/a.avi"], "ends in .webp, .gif, .mp4"),
        (["interpolate", "--seeds=0-2", "--grid=2x2", "--out={folder}/a.webp"], "--seeds has 3 seeds"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_drawn(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr(Renderer, "batches", None)
    monkeypatch.setattr(Renderer, "seed_batches", None)
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("gone")
    places = {name: tmp_path / name for name in ("file", "folder", "dangling")}
    filled = [text.format(**places) for text in arguments]
    words = filled if filled[0].startswith("-") else filled[1:]
    command = filled[: len(filled) - len(words)]
    assert message in run(*command, f"--network={snapshot}", *words, ok=False)
    assert not [path for path in (tmp_path / "folder").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["interpolate", "--seeds=0,1", "--frames=1", "--out={}/a.webp"], "a.webp"),
        (["--seeds=0", "--outdir={}", "--save-w"], "w.npz"),
        (["--export={}/x.pkl"], "x.pkl"),
    ],
)
def test_a_full_disk_is_an_error_that_names_the_file(snapshot, tmp_path, monkeypatch, words, name) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    command, *rest = (word.format(tmp_path) for word in [*words, f"--network={snapshot}"])
    message = f"{tmp_path / name} cannot be used: No space left on device; give another path, or free some space"
    assert message in run(command, *rest, ok=False)


def test_nothing_is_written_inside_what_is_read_as_images(tiny_config, tiny_data, tmp_path) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    config = replace(tiny_config, data=DataConfig(str(tmp_path / "link")))
    network = f"--network={tmp_path / 'net.pkl'}"
    save_snapshot(tmp_path / "net.pkl", TrainState(config, DatasetSpec(16, 16, 3), torch.device("cpu")))
    (tmp_path / "link2").symlink_to(tmp_path / "data" / "00000")
    before = sorted((tmp_path / "data").rglob("*"))
    for folder in ("data", "link/new", "link2"):
        out = tmp_path / folder
        for arguments in (
            [network, "--seeds=0", f"--outdir={out}"],
            [network, f"--export={out / 'x.pkl'}"],
            ["mix", network, "--rows=0", "--cols=1", f"--outdir={out}"],
            ["interpolate", network, "--seeds=0,1", f"--out={out / 'a.webp'}"],
        ):
            assert "lies inside the training set" in run(*arguments, ok=False)
    assert "is the file of --network itself" in run(network, f"--export={tmp_path / 'net.pkl'}", ok=False)
    image = tmp_path / "data" / "00000" / "img00000000.png"
    shutil.copy(image, tmp_path / "proj00.png")
    output = run("project", network, f"--target={tmp_path / 'proj00.png'}", f"--outdir={tmp_path}", ok=False)
    assert "--outdir" in output and sorted((tmp_path / "data").rglob("*")) == before
    assert (tmp_path / "proj00.png").read_bytes() == image.read_bytes()
    shutil.copytree(tiny_data, tmp_path / "other")
    target = f"--target={tmp_path / 'other' / '00000' / 'img00000000.png'}"
    for folder in ("other", "other/00000", "other/new"):
        output = run("project", network, target, f"--outdir={tmp_path / folder}", ok=False)
        assert "lies inside the data set of --target" in output
    arguments = ["nearest", network, "--seeds=0", f"--data={tmp_path / 'other'}", f"--outdir={tmp_path / 'other'}"]
    assert "lies inside --data" in run(*arguments, ok=False)
