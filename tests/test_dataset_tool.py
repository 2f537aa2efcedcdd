import json
import os
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
from dnnlib.demo_digits import digits
from dnnlib.picture import decode

ROOT = Path(__file__).parent.parent


def _run(*options: object) -> Result:
    return CliRunner().invoke(dataset_tool.main, [str(option) for option in options])


def _pack(source: object, dest: Path, *options: str) -> tuple[list[np.ndarray], dict[str, object]]:
    """Pack, which must succeed, and return the pictures in the zip, in order, and its dataset.json."""
    result = _run(f"--source={source}", f"--dest={dest}", "--workers=1", *options)
    assert result.exit_code == 0, result.output
    with zipfile.ZipFile(dest) as archive:
        names = [name for name in archive.namelist() if name != "dataset.json"]
        assert names == [f"{index // 1000:05d}/img{index:08d}.png" for index in range(len(names))]
        return [decode(archive.read(name)) for name in names], json.loads(archive.read("dataset.json"))


def _refused(message: str, *options: object) -> None:
    """Check that a command fails with this message."""
    result = _run(*options)
    assert result.exit_code != 0
    assert message in result.output.replace("\n", " "), result.output


def _save(path: Path, seed: int, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> np.ndarray:
    """Write a random picture of this size (width, height) and return its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    image.save(path)
    return np.asarray(image)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Return a folder of twelve pictures in two class folders."""
    folder = tmp_path / "pets"
    for index in range(12):
        _save(folder / ("cat" if index < 6 else "dog") / f"{index}.png", index)
    return folder


def test_demo_as_a_user_runs_it(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "dataset_tool.py", "--source=demo", "--dest=new/demo.zip", "--max-images=130"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "130 pictures of 32x32 RGB, 10 classes (0, 1, 2" in done.stdout
    assert done.stderr == ""
    pictures, content = _pack("demo", tmp_path / "again.zip", "--max-images=130")
    assert all(np.array_equal(ours, drawn) for ours, (drawn, _) in zip(pictures, digits("train", 130), strict=True))
    assert [label for _, label in content["labels"]] == [index % 10 for index in range(130)]
    assert (tmp_path / "new" / "demo.zip").read_bytes() == (
        tmp_path / "again.zip"
    ).read_bytes()  # many processes or one


def test_help_does_not_load_torch() -> None:
    code = "import sys, dataset_tool; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_termination_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "dataset_tool.py", "--source=demo", f"--dest={tmp_path / 'demo.zip'}"]
    with subprocess.Popen(command) as process:
        for _ in range(1000):
            if os.listdir(tmp_path):
                break
            time.sleep(0.01)
        assert os.listdir(tmp_path)[0].startswith(".demo.zip")
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert os.listdir(tmp_path) == []


def test_score_split_of_the_demo(tmp_path: Path) -> None:
    pictures, _ = _pack("demo", tmp_path / "d.zip", "--split=score", "--max-images=3")
    assert np.array_equal(pictures[2], list(digits("score", 3))[2][0])


def test_folder_without_labels(tmp_path: Path) -> None:
    expected = {name: _save(tmp_path / "in" / name, index) for index, name in enumerate(["10.png", "9.bmp", "a/1.png"])}
    (tmp_path / "in" / "readme.txt").touch()
    pictures, content = _pack(tmp_path / "in", tmp_path / "d.zip")
    assert content == {"labels": None}
    for picture, name in zip(pictures, ["9.bmp", "10.png", "a/1.png"], strict=True):
        assert np.array_equal(picture, expected[name])


def test_labels_from_folders_and_kept_by_the_next_packing(pets: Path, tmp_path: Path) -> None:
    pictures, content = _pack(pets, tmp_path / "one.zip", "--labels-from-folders")
    assert content["class_names"] == ["cat", "dog"]
    assert [label for _, label in content["labels"]] == [0] * 6 + [1] * 6
    again, content_again = _pack(tmp_path / "one.zip", tmp_path / "two.zip")
    assert content_again == content
    assert np.array_equal(np.stack(again), np.stack(pictures))
    _refused(
        "leave out --labels-from-folders",
        f"--source={tmp_path / 'one.zip'}",
        f"--dest={tmp_path / 'd.zip'}",
        "--class-labels",
    )


def test_max_images_spreads_over_the_classes(pets: Path, tmp_path: Path) -> None:
    pictures, content = _pack(pets, tmp_path / "d.zip", "--labels-from-folders", "--max-images=4")
    assert [label for _, label in content["labels"]] == [0, 0, 1, 1]
    assert len(pictures) == 4
    assert len(_pack(pets, tmp_path / "all.zip", "--max-images=99")[0]) == 12


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
    assert _pack(tmp_path / "in", tmp_path / "d.zip")[1] == {"labels": [["00000/img00000000.png", [0.5, -1.0]]]}


def test_grey_stays_grey_unless_mixed_with_colour(tmp_path: Path) -> None:
    grey = _save(tmp_path / "in" / "1.png", 1, mode="L")
    assert _pack(tmp_path / "in", tmp_path / "grey.zip")[0][0].shape == (6, 8, 1)
    _save(tmp_path / "in" / "2.png", 2)
    pictures, _ = _pack(tmp_path / "in", tmp_path / "mixed.zip")
    assert [picture.shape for picture in pictures] == [(6, 8, 3), (6, 8, 3)]
    assert np.array_equal(pictures[0], grey[:, :, None].repeat(3, axis=2))


def test_folder_as_dest(pets: Path, tmp_path: Path) -> None:
    assert _run(f"--source={pets}", f"--dest={tmp_path / 'out'}", "--workers=1").exit_code == 0
    assert len(list((tmp_path / "out" / "00000").glob("img*.png"))) == 12


def test_bad_pictures_are_named_and_nothing_is_left(pets: Path, tmp_path: Path) -> None:
    options = (f"--source={pets}", f"--dest={tmp_path / 'd.zip'}", "--workers=1")
    _save(pets / "dog" / "99.png", 0, size=(6, 8))
    _refused(f"cat/0.png in {pets} is 8x6 and dog/99.png in {pets} is 6x8", *options)
    _save(pets / "dog" / "99.png", 0, mode="RGBA")
    _refused("dog/99.png in", *options)
    _refused("has transparency", *options)
    (pets / "dog" / "99.png").write_text("not found")
    _refused("is not a picture", *options)
    _save(pets / "dog" / "99.png", 0)
    content = (pets / "dog" / "99.png").read_bytes()
    (pets / "dog" / "99.png").write_bytes(content[: len(content) // 2])
    _refused(f"dog/99.png in {pets} is damaged", *options)
    assert os.listdir(tmp_path) == ["pets"]


def test_damaged_zip_entry_is_named(pets: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        archive.write(pets / "cat" / "0.png", "0.png")
    content = bytearray((tmp_path / "pets.zip").read_bytes())
    content[100] ^= 1
    (tmp_path / "pets.zip").write_bytes(content)
    _refused("0.png in", f"--source={tmp_path / 'pets.zip'}", f"--dest={tmp_path / 'd.zip'}", "--workers=1")


def test_existing_dest_needs_force(pets: Path, tmp_path: Path) -> None:
    dest = tmp_path / "d.zip"
    dest.write_text("precious")
    _refused("--force to replace it", f"--source={pets}", f"--dest={dest}")
    assert dest.read_text() == "precious"
    assert len(_pack(pets, dest, "--force")[0]) == 12
    _refused("--source and --dest are both", f"--source={dest}", f"--dest={dest}", "--force")


def test_bad_options(pets: Path, tmp_path: Path) -> None:
    dest = f"--dest={tmp_path / 'd.zip'}"
    _refused("does not exist", f"--source={tmp_path / 'nowhere'}", dest)
    _refused("--split=score is for --source=demo only", f"--source={pets}", dest, "--split=score")
    _refused("brings its own labels", "--source=demo", dest, "--labels-from-folders")
    _refused("neither a folder nor a readable zip", f"--source={__file__}", dest)
    _refused("contains no pictures", f"--source={ROOT / 'dnnlib'}", dest)
    _refused("needs every picture", f"--source={pets / 'cat'}", dest, "--labels-from-folders")
    _refused("Invalid value for '--max-images'", f"--source={pets}", dest, "--max-images=0")
