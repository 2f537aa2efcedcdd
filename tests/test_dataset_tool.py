import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import dataset_tool
from dnnlib.images.codec import decode, encode_png
from dnnlib.sources.demo import digits
from training.data.dataset import ImageDataset

ROOT = Path(__file__).parent.parent


def _run(*options: object) -> Result:
    return CliRunner().invoke(dataset_tool.main, [str(option) for option in options])


def _pack(source: object, dest: Path, *options: str) -> tuple[list[np.ndarray], dict[str, object]]:
    """Pack, which must succeed, and return the images in the zip, in order, and its dataset.json."""
    result = _run(f"--source={source}", f"--dest={dest}", "--workers=1", *options)
    assert result.exit_code == 0, result.output
    with zipfile.ZipFile(dest) as archive:
        names = [name for name in archive.namelist() if name != "dataset.json"]
        assert names == [f"{index // 1000:05d}/img{index:08d}.png" for index in range(len(names))]
        return [decode(archive.read(name)) for name in names], json.loads(archive.read("dataset.json"))


def _refused(message: str, *options: object) -> None:
    """Check that a command fails with this message, in one line but for what it says of train.py."""
    result = _run(*options)
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit)  # not a traceback
    assert message in result.output.replace("\n", " "), result.output
    lines = [line for line in result.output.splitlines() if not line.startswith("Warning: train.py will not take")]
    assert len(lines) == 1, result.output


def _save(path: Path, seed: int, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> np.ndarray:
    """Write a random image of this size (width, height) and return its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    image.save(path)
    return np.asarray(image)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Return a folder of twelve images in two class folders."""
    folder = tmp_path / "pets"
    for index in range(12):
        _save(folder / ("cat" if index < 6 else "dog") / f"{index}.png", index)
    return folder


def test_demo_as_a_user_runs_it(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "dataset_tool.py", "--source=demo", "--dest=new/demo.zip", "--max-images=130"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "130 images of 32x32 RGB, 10 classes (0, 1, 2" in done.stdout
    assert done.stderr == ""
    images, content = _pack("demo", tmp_path / "again.zip", "--max-images=130")
    assert all(np.array_equal(ours, drawn) for ours, (drawn, _) in zip(images, digits("train", 130), strict=True))
    assert [label for _, label in content["labels"]] == [index % 10 for index in range(130)]
    by_many_processes, by_one = tmp_path / "new" / "demo.zip", tmp_path / "again.zip"
    assert by_many_processes.read_bytes() == by_one.read_bytes()


def test_demo_scenes(tmp_path: Path) -> None:
    options = ["--scenes", "--width=96", "--height=64", "--max-images=6", "--workers=1"]
    result = _run("--source=demo", f"--dest={tmp_path / 'scenes.zip'}", *options)
    assert "6 images of 96x64 RGB, 5 classes (1 digit, 2 digits" in result.output


def _interrupt(dest: Path, signal_number: int) -> int:
    """Start packing the demo set with two processes, send a signal once images are stored, return the exit code."""
    command = [sys.executable, ROOT / "dataset_tool.py", "--source=demo", f"--dest={dest}", "--workers=2", "--force"]
    with subprocess.Popen(command) as process:
        for _ in range(2000):
            time.sleep(0.01)
            if any(path.stat().st_size > 10_000 for path in dest.parent.glob(f".{dest.name}.*.tmp")):
                break
        process.send_signal(signal_number)
    return process.returncode


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGHUP, 128 + signal.SIGHUP), (signal.SIGINT, 1)],
)
def test_termination_and_ctrl_c_leave_the_older_data_set_alone(tmp_path: Path, number: int, status: int) -> None:
    (tmp_path / "demo.zip").write_text("older")
    assert _interrupt(tmp_path / "demo.zip", number) == status
    assert os.listdir(tmp_path) == ["demo.zip"]
    assert (tmp_path / "demo.zip").read_text() == "older"


def test_a_second_signal_does_not_interrupt_the_cleaning_up(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: dict[int, object] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    with pytest.raises(SystemExit) as ended:
        dataset_tool.end(signal.SIGHUP, None)
    assert ended.value.code == 129
    assert handlers == dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIG_IGN)


def test_after_a_kill_a_later_run_works_and_cleans_up(tmp_path: Path) -> None:
    dest = tmp_path / "demo.zip"
    assert _interrupt(dest, signal.SIGKILL) == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".tmp"
    os.utime(left, (time.time() - 5, time.time() - 5))
    for _ in range(500):  # the workers end a moment after their parent, and hold the file open until then
        _pack("demo", dest, "--max-images=3", "--force")
        if os.listdir(tmp_path) == ["demo.zip"]:
            return
        time.sleep(0.01)
    pytest.fail(f"still there: {os.listdir(tmp_path)}")


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000,) * 2); import dataset_tool"
    options = ["--source=demo", f"--dest={tmp_path / 'demo.zip'}", "--workers=2"]
    command = [sys.executable, "-c", f"{code}; dataset_tool.main({options})"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {tmp_path / 'demo.zip'} cannot be written: File too large; make room")
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_folder_without_labels(tmp_path: Path) -> None:
    expected = {name: _save(tmp_path / "in" / name, index) for index, name in enumerate(["10.png", "9.bmp", "a/1.png"])}
    (tmp_path / "in" / "readme.txt").touch()
    images, content = _pack(tmp_path / "in", tmp_path / "d.zip")
    assert content["labels"] is None and content.keys() == {"labels", "image_format"}
    for image, name in zip(images, ["9.bmp", "10.png", "a/1.png"], strict=True):
        assert np.array_equal(image, expected[name])


def test_labels_from_folders_and_kept_by_the_next_packing(pets: Path, tmp_path: Path) -> None:
    images, content = _pack(pets, tmp_path / "one.zip", "--labels-from-folders")
    assert content["class_names"] == ["cat", "dog"]
    assert [label for _, label in content["labels"]] == [0] * 6 + [1] * 6
    again, content_again = _pack(tmp_path / "one.zip", tmp_path / "two.zip")
    assert content_again == content
    assert np.array_equal(np.stack(again), np.stack(images))
    options = (f"--source={tmp_path / 'one.zip'}", f"--dest={tmp_path / 'd.zip'}", "--class-labels")
    _refused("leave out --labels-from-folders", *options)


def test_what_is_not_read_and_classes_without_images_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for index, name in enumerate(["0.png", "1.PNG", "2.jfif", "@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", "Thumbs.db"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), index, np.uint8)).save(folder / name, "JPEG" if "j" in name else "PNG")
    for name in ("3.heic", "notes.txt", "raw.CR2", "more.txt"):
        (folder / name).touch()
    (folder / "dataset.json").write_text(json.dumps({"labels": [["0.png", 1], ["1.png", 2], ["2.jfif", 6]]}))
    result = _run(f"--source={folder}", f"--dest={tmp_path / 'd.zip'}", "--workers=1")
    left_out = "2 .txt, 1 .cr2, 1 .heic, 1 @eaDir, 1 Thumbs.db"
    assert "3 images of 32x32 RGB, from 2 .png, 1 .jfif, 7 classes" in result.stdout
    assert f"Left out of {folder}: {left_out}; convert .heic images to JPEG to use them\n" in result.stdout
    assert result.stderr == "Warning: empty classes, without images: 0,3-5\n"
    notes = ["Images by suffix: 2 .png, 1 .jfif", f"Left out of {folder}: {left_out}"]
    empty = "Warning: empty classes, without images: "
    assert ImageDataset(folder, use_labels=True).notes() == [*notes, f"{empty}0,3-5"]
    assert ImageDataset(folder, use_labels=True, max_images=1).notes()[2].count(",") >= 1  # those of the images in use
    assert ImageDataset(folder).notes()[2].endswith("are not used; to train on them, start with --cond=1")
    (folder / "dataset.json").write_text("{")
    assert ImageDataset(folder).notes()[2].startswith("Labels are not used: dataset.json in")


def test_run_folders_and_networks_are_no_data(tmp_path: Path) -> None:
    _save(tmp_path / "set" / "1.png", 0)
    _save(tmp_path / "set" / "runs" / "00000-x" / "reals.png", 0)
    (tmp_path / "set" / "runs" / "00000-x" / "training_options.json").touch()
    result = _run(f"--source={tmp_path / 'set'}", f"--dest={tmp_path / 'd.zip'}", "--workers=1")
    assert "1 images of 8x6" in result.stdout and "2 files of training runs" in result.stdout
    dest = f"--dest={tmp_path / 'e.zip'}"
    _refused("it holds 2 files of training runs", f"--source={tmp_path / 'set' / 'runs' / '00000-x'}", dest)
    with zipfile.ZipFile(tmp_path / "network.pkl", "w") as archive:
        archive.writestr("network/data.pkl", b"")
    _refused("network.pkl is a network or a training state", f"--source={tmp_path / 'network.pkl'}", dest)


def test_max_images_spreads_over_the_classes(pets: Path, tmp_path: Path) -> None:
    _, content = _pack(pets, tmp_path / "d.zip", "--labels-from-folders", "--max-images=4")
    assert [label for _, label in content["labels"]] == [0, 0, 1, 1]
    assert len(_pack(pets, tmp_path / "all.zip", "--max-images=99")[0]) == 12


@pytest.mark.parametrize("is_zip", [False, True])
def test_class_folders_that_are_empty_are_named(pets: Path, tmp_path: Path, is_zip: bool) -> None:
    (pets / "bird" / "young").mkdir(parents=True)
    (pets / ".hidden").mkdir()
    source = Path(shutil.make_archive(str(tmp_path / "zipped"), "zip", pets)) if is_zip else pets
    result = _run(f"--source={source}", f"--dest={tmp_path / 'd.zip'}", "--labels-from-folders", "--workers=1")
    assert result.stderr.endswith("Warning: folders without images, which are no classes: bird\n")


def test_zip_source_equals_folder_source(pets: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pets.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in pets.rglob("*.png"):
            archive.write(path, Path("train") / path.relative_to(pets))
    _pack(pets, tmp_path / "a.zip", "--labels-from-folders")
    _pack(tmp_path / "pets.zip", tmp_path / "b.zip", "--labels-from-folders", "--workers=2")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_vector_labels_are_kept(tmp_path: Path) -> None:
    _save(tmp_path / "in" / "1.png", 1)
    (tmp_path / "in" / "dataset.json").write_text(json.dumps({"labels": [["1.png", [0.5, -1.0]]]}))
    assert _pack(tmp_path / "in", tmp_path / "d.zip")[1]["labels"] == [["00000/img00000000.png", [0.5, -1.0]]]


def test_grey_stays_grey_unless_mixed_with_colour(tmp_path: Path) -> None:
    grey = _save(tmp_path / "in" / "1.png", 1, mode="L")
    assert _pack(tmp_path / "in", tmp_path / "grey.zip")[0][0].shape == (6, 8, 1)
    _save(tmp_path / "in" / "2.png", 2)
    images, _ = _pack(tmp_path / "in", tmp_path / "mixed.zip")
    assert [image.shape for image in images] == [(6, 8, 3), (6, 8, 3)]
    assert np.array_equal(images[0], grey[:, :, None].repeat(3, axis=2))


def test_a_bad_image_is_named_and_nothing_is_left(pets: Path, tmp_path: Path) -> None:
    """tests/test_damaged_data.py has other kinds."""
    content = (pets / "dog" / "9.png").read_bytes()
    (pets / "dog" / "9.png").write_bytes(content[: len(content) // 2])
    options = (f"--source={pets}", f"--dest={tmp_path / 'd.zip'}", "--workers=1")
    _refused(f"dog/9.png in {pets} is damaged (image file is truncated", *options)
    _refused("Or skip such files with --on-error=skip", *options)
    assert os.listdir(tmp_path) == ["pets"]


def test_bad_sources_and_options(pets: Path, tmp_path: Path) -> None:
    dest = f"--dest={tmp_path / 'd.zip'}"
    _refused("does not exist", f"--source={tmp_path / 'nowhere'}", dest)
    _refused("--split=score is not for a folder or zip of images", f"--source={pets}", dest, "--split=score")
    _refused("has its own labels", "--source=demo", dest, "--labels-from-folders")
    _refused("--scenes needs a size", "--source=demo", dest, "--scenes")
    _refused("--scenes is for --source=demo only", f"--source={pets}", dest, "--scenes", "--width=64")
    _refused("is a text, which begins", f"--source={__file__}", dest)
    _refused("contains no images", f"--source={ROOT / 'dnnlib'}", dest)
    (tmp_path / "empty").mkdir()
    _refused(f"{tmp_path / 'empty'} contains no images (.png", f"--source={tmp_path / 'empty'}", dest)
    _refused("needs every image", f"--source={pets / 'cat'}", dest, "--labels-from-folders")
    _refused("--max-images: 0 is not in the range", f"--source={pets}", dest, "--max-images=0")
    _refused("'octarine' is not a colour; give a name", f"--source={pets}", dest, "--background=octarine")
    _refused("needs the size of the new images", f"--source={pets}", dest, "--transform=center-crop", "--width=8")
    _refused("--transform: 'crop' is not one of", f"--source={pets}", dest, "--transform=crop")
    _refused("d.tar: .tar files are not written; give a name ending in .zip", f"--source={pets}", "--dest=d.tar")
    assert os.listdir(tmp_path / "empty") == []
    (tmp_path / "d.zip").write_text("precious")
    _refused("--force to replace it", f"--source={pets}", dest)
    _refused("d.zip lies inside --source=", f"--source={tmp_path / 'd.zip'}", dest, "--force")
    assert (tmp_path / "d.zip").read_text() == "precious"
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "d.zip", tmp_path / "file" / "sub" / "d"):
        _refused(f"{path} cannot be written, as {tmp_path / 'file'} is no folder", f"--source={pets}", f"--dest={path}")


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_files_are_skipped_with_their_labels(pets: Path, tmp_path: Path, workers: int) -> None:
    (pets / "cat" / "2.png").write_text("not found")  # seen in its header
    content = (pets / "dog" / "7.png").read_bytes()
    (pets / "dog" / "7.png").write_bytes(content[: len(content) // 2])  # seen when it is decoded
    _save(pets / "dog" / "9.png", 9, mode="RGBA")
    dest = tmp_path / "d.zip"
    options = (f"--source={pets}", f"--dest={dest}", "--labels-from-folders", "--on-error=skip")
    result = _run(*options, f"--workers={workers}")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[0].startswith("Warning: train.py will not take these images: ")
    assert result.stderr.splitlines()[1] == "Skipped 3 of 12 images:"
    assert [line.split()[0] for line in result.stderr.splitlines()[2:]] == ["cat/2.png", "dog/9.png", "dog/7.png"]
    assert "9 images of 8x6 RGB, 2 classes" in result.stdout
    for name in ["cat/2.png", "dog/7.png", "dog/9.png"]:
        (pets / name).unlink()
    _pack(pets, tmp_path / "good.zip", "--labels-from-folders")
    assert dest.read_bytes() == (tmp_path / "good.zip").read_bytes()


def test_nothing_usable(pets: Path, tmp_path: Path) -> None:
    for path in pets.rglob("*.png"):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    options = (f"--source={pets}", f"--dest={tmp_path / 'd.zip'}", "--on-error=skip", "--workers=1")
    _refused(f"none of the 12 images is usable; cat/0.png in {pets} is damaged", *options)
    for path in pets.rglob("*.png"):
        path.write_text("not found")
    _refused(f"none of the 12 images is usable; cat/0.png in {pets} is not an image", *options)
    assert os.listdir(tmp_path) == ["pets"]


def test_different_sizes_are_made_one(pets: Path, tmp_path: Path) -> None:
    _save(pets / "dog" / "99.png", 99, size=(20, 30))
    options = (f"--source={pets}", f"--dest={tmp_path / 'd.zip'}", "--workers=1", "--force")
    _refused("is 8x6 and dog/99.png", *options, "--on-error=skip")  # no file is bad by itself
    _refused("is 8x6 and dog/99.png", *options, "--width=8")  # their heights differ
    result = _run(*options, "--width=8", "--height=8")
    assert "13 images of 8x8 RGB, no labels, 12 of them enlarged, 13 of them stretched" in result.output
    images, _ = _pack(pets, tmp_path / "d.zip", "--transform=center-crop", "--width=6", "--height=6", "--force")
    assert np.array_equal(images[0], decode((pets / "cat" / "0.png").read_bytes())[:, 1:7])
    images, _ = _pack(pets, tmp_path / "d.zip", "--transform=center-crop-wide", "--width=8", "--height=4", "--force")
    assert {image.shape for image in images} == {(8, 8, 3)}
    assert not any(image[:2].any() for image in images)


@pytest.mark.parametrize(
    ("side", "reason"),
    [(1100, "images of 1100x1100 px are too large: "), (33, "images of 33x33 px cannot be halved evenly")],
)
def test_images_that_train_py_refuses_are_packed_with_a_warning(tmp_path: Path, side: int, reason: str) -> None:
    size = (f"--width={side}", f"--height={side}", "--max-images=10", "--workers=1")
    result = _run("--source=demo", f"--dest={tmp_path / 'd.zip'}", *size)
    assert result.exit_code == 0
    assert result.stderr.startswith(f"Warning: train.py will not take these images: {reason}")
    assert result.stderr.count("\n") == 1
    assert f"10 images of {side}x{side} RGB" in result.stdout


def test_celeba_crop_of_jpeg_files(tmp_path: Path) -> None:
    for index in range(3):
        _save(tmp_path / "img_align_celeba" / f"{index}.jpg", index, size=(178, 218))
    images, _ = _pack(tmp_path / "img_align_celeba", tmp_path / "d.zip", "--transform=celeba")
    decoded = decode((tmp_path / "img_align_celeba" / "2.jpg").read_bytes())
    assert np.array_equal(images[2], decoded[57:185, 25:153])
    _save(tmp_path / "img_align_celeba" / "2.jpg", 0, size=(178, 200))
    options = (f"--source={tmp_path / 'img_align_celeba'}", f"--dest={tmp_path / 'e.zip'}", "--transform=celeba")
    _refused(f"2.jpg in {tmp_path / 'img_align_celeba'} is 178x200, but --transform=celeba is for", *options)
    result = _run(*options, "--on-error=skip", "--width=64", "--height=64")
    assert "2 images of 64x64 RGB" in result.output
    _refused("demo image 0 is 32x32, but --transform=celeba", "--source=demo", *options[1:], "--force")


def test_set_of_torchvision_is_packed_or_said_to_be_missing(tmp_path: Path) -> None:
    size = ("--max-images=3", "--width=16", "--height=16")
    images, content = _pack("torchvision:FakeData", tmp_path / "a.zip", *size)
    assert len(images) == len(content["labels"]) == 3
    assert "class_names" not in content
    missing = ("--source=torchvision:CIFAR10", f"--root={tmp_path}", f"--dest={tmp_path / 'c.zip'}")
    _refused(f"torchvision's CIFAR10 cannot be opened in {tmp_path}: ", *missing)
    _refused("or --download to fetch it there", *missing)


def test_inspect_says_what_is_there_and_draws_it(pets: Path, tmp_path: Path) -> None:
    _save(pets / "cat" / "99.png", 0, mode="RGBA")
    command = [sys.executable, ROOT / "dataset_tool.py", "--inspect", f"--source={pets}", "--labels-from-folders"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("13 images\nformat      PNG        13\nsize        8x6        13\n")
    assert "python dataset_tool.py --source=" in done.stdout
    assert "--labels-from-folders --dest=NEW.zip --background=white --transform=center-crop --width=32" in done.stdout
    result = _run(f"--source={pets}", f"--inspect={tmp_path / 'grid.png'}", "--workers=1")
    assert f"grid        {tmp_path / 'grid.png'}" in result.output
    assert decode((tmp_path / "grid.png").read_bytes()).shape[2] == 3


def test_inspect_takes_any_source_and_knows_what_train_py_takes(tmp_path: Path) -> None:
    packed = tmp_path / "demo.zip"
    assert "neither a folder nor a zip" in _run("--source=demo", "--inspect", "--max-images=20", "--workers=1").output
    _pack("demo", packed, "--max-images=20")
    assert "can train on it as it is" in _run(f"--source={packed}", "--inspect", "--workers=1").output
    _pack("demo", packed, "--force", "--width=34", "--height=34", "--max-images=20")
    result = _run(f"--source={packed}", "--inspect", "--workers=1")
    assert "- images of 34x34 px cannot be halved evenly down to about 8 px" in result.output


def test_scenes_are_inspected_in_their_size_and_the_advice_packs_them(tmp_path: Path) -> None:
    options = ["--source=demo", "--scenes", "--width=96", "--height=64", "--max-images=3", "--workers=1"]
    result = _run(*options, "--inspect")
    assert "size        96x64         3" in result.stdout
    assert "--source=demo --scenes --width=96 --height=64 --dest=NEW.zip" in result.stdout


def test_inspect_with_options_that_do_not_suit_it(pets: Path, tmp_path: Path) -> None:
    _refused("leave out --dest", f"--source={pets}", "--inspect", f"--dest={tmp_path / 'd.zip'}")
    _refused("leave out --width", f"--source={pets}", "--inspect", "--width=8")
    _refused("is not the name of a .png, ", f"--source={pets}", f"--inspect={tmp_path / 'grid.txt'}")
    _refused("in a folder that exists", f"--source={pets}", f"--inspect={tmp_path / 'nowhere' / 'grid.png'}")
    _refused("leave out --width", "--source=demo", "--inspect", "--width=8")
    _refused("--dest is missing; write --dest=PATH", f"--source={pets}")
    assert os.listdir(tmp_path) == ["pets"]


def test_a_source_inside_dest_is_refused_and_kept(tmp_path: Path) -> None:
    for folder in ("out/00000", "out/00001"):
        _save(tmp_path / folder / "1.png", 0)
    dest, source = tmp_path / "out", tmp_path / "out" / "00000"
    _refused(f"--source={source} lies inside --dest={dest}", f"--source={source}", f"--dest={dest}", "--force")
    assert (source / "1.png").exists()
    _refused("an empty path was given", "--source=", f"--dest={tmp_path / 'new'}")
    _refused("an empty path was given", f"--source={source}", "--dest=")
    _refused("https://a.org/x.zip is an address", "--source=https://a.org/x.zip", f"--dest={tmp_path / 'new'}")


def test_names_of_a_zip_in_a_legacy_encoding_are_read_with_a_warning(tmp_path: Path) -> None:
    """tests/dnnlib/test_zip_reader.py has other encodings."""
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in ("xxx/1.png", "a/1.png"):
            archive.writestr(name, encode_png(np.zeros((32, 32, 3), np.uint8)))
    content = (tmp_path / "set.zip").read_bytes()
    (tmp_path / "set.zip").write_bytes(content.replace(b"xxx", "ü".encode("cp437") + b"ab"))
    result = _run(f"--source={tmp_path / 'set.zip'}", f"--dest={tmp_path / 'd.zip'}", "--labels-from-folders")
    assert "2 classes (a, üab)" in result.stdout and "read as code page 437" in result.stderr
