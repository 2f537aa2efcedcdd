"""Damaged and hostile data sets, given to the loader, to dataset_tool.py and to train.py."""

import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import dataset_tool
import train
from dnnlib.images.codec import encode_png
from training.data.stream import ImageDataset

COUNT = 12
LAST = f"{COUNT - 1}.png"
Members = dict[str, bytes]


def _png(seed: int, size: int = 16, channels: int = 3) -> bytes:
    return encode_png(np.random.default_rng(seed).integers(0, 256, (size, size, channels), dtype=np.uint8))


def _members() -> Members:
    """Return what a good data set holds."""
    images = {f"{index}.png": _png(index) for index in range(COUNT)}
    labels = json.dumps({"labels": [[name, 0] for name in images]}).encode()
    return {**images, "dataset.json": labels}


def _zip(path: Path, members: Members) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _with(name: str, content: bytes) -> Callable[[Path], None]:
    """Return a maker of a zip with one more member, or another one of this name."""
    return lambda path: _zip(path, _members() | {name: content})


def _edited(edit: Callable[[bytearray], object]) -> Callable[[Path], None]:
    """Return a maker of a zip whose bytes are then edited."""

    def make(path: Path) -> None:
        _zip(path, _members())
        content = bytearray(path.read_bytes())
        edit(content)
        path.write_bytes(content)

    return make


def _declared(offset: int, fmt: str, value: int) -> Callable[[bytearray], object]:
    """Return an edit of a field of the last image's entry in the zip's table."""
    return lambda content: struct.pack_into(fmt, content, content.rindex(LAST.encode()) - 46 + offset, value)


def _damaged_everywhere(content: bytearray) -> None:
    for start in [match.start() for match in re.finditer(b"IDAT", content)]:
        content[start + 20] ^= 1


def _image_bomb() -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = struct.pack(">I", 13) + header + struct.pack(">II", zlib.crc32(header), 4) + b"IDAT1234"
    return b"\x89PNG\r\n\x1a\n" + chunks


def _twice(path: Path) -> None:
    _zip(path, _members())
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(LAST, b"")


def _labels(*pairs: object) -> bytes:
    return json.dumps({"labels": [[f"{index}.png", 0] for index in range(COUNT)] + list(pairs)}).encode()


@dataclass
class Damage:
    make: Callable[[Path], object]
    message: str  # to be found in the line that is printed; naming the member where it is one
    tool_message: str = ""  # of dataset_tool.py, where it is another


DAMAGES = {
    "no bytes": Damage(Path.touch, "is empty; copy or download it again"),
    "cut off": Damage(_edited(lambda content: content.__delitem__(slice(-60, None))), "its end is missing"),
    "garbage in the table": Damage(
        _edited(lambda content: content.__setitem__(slice(-900, -100), os.urandom(800))), "damaged zip file"
    ),
    "checksums wrong": Damage(_edited(_damaged_everywhere), "more than 10 images are broken.*0.png", "0.png .*Bad CRC"),
    "not an image": Damage(_with(LAST, b"<html>not found</html>"), f"{LAST} in .* is not an image"),
    "no content": Damage(_with(LAST, b""), f"{LAST} in .* is empty"),
    "huge member": Damage(_edited(_declared(24, "<I", 3 * 2**30)), f"{LAST} in .* has 3.0 GiB, more than the limit"),
    "bomb of pixels": Damage(_with(LAST, _image_bomb()), f"{LAST} in .* is too large, perhaps a decompression bomb"),
    "parent path": Damage(_with("../x.png", b""), r'member named "../x.png": absolute paths and .. are refused'),
    "two of one name": Damage(_twice, f'two members of one name: "{LAST}" and "{LAST}"'),
    "encrypted": Damage(_edited(_declared(8, "<H", 1)), f"{LAST} in .* is encrypted"),
    "another size": Damage(_with(LAST, _png(0, 32)), f"0.png in .* is 16x16 and {LAST} in .* is 32x32"),
    "transparent": Damage(_with(LAST, _png(0, 16, 4)), f"{LAST} in .* has transparency"),
    "no images": Damage(lambda path: _zip(path, {"readme.txt": b"hello"}), "contains no images"),
    "labels cut off": Damage(_with("dataset.json", _labels()[:50]), "dataset.json in .* is not valid JSON"),
    "labels not text": Damage(_with("dataset.json", b"\xff\xfe\0"), "dataset.json in .* is not valid JSON"),
    "label of no file": Damage(_with("dataset.json", _labels(["99.png", 0])), "labels for 99.png, which are no images"),
    "endless classes": Damage(
        _with("dataset.json", _labels()[:-4] + b"999999999]]}"), f"class index of {LAST} is 999999999"
    ),
}


@pytest.fixture(params=DAMAGES)
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Damage]]:
    """Give each damaged data set; afterwards nothing else may have appeared."""
    path = tmp_path / "set.zip"
    damage = DAMAGES[request.param]
    damage.make(path)
    before = path.read_bytes()
    yield path, damage
    assert os.listdir(tmp_path) == ["set.zip"]
    assert path.read_bytes() == before


def _assert_refused(result: Result, path: Path, message: str) -> None:
    """Check that a script ended with one line that names the file, and no traceback."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert re.fullmatch(rf"Error: .*{re.escape(str(path))}.*\n", result.stderr), result.stderr
    assert re.search(message, result.stderr), result.stderr


def test_the_undamaged_one_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    _zip(path, _members())
    assert len(ImageDataset(path, use_labels=True)) == COUNT
    for main, options in (
        (dataset_tool.main, [f"--source={path}", f"--dest={tmp_path / 'new.zip'}"]),
        (train.main, [f"--data={path}", f"--outdir={tmp_path / 'runs'}", "--cond=1", "--dry-run", "--metrics=none"]),
    ):
        result = CliRunner().invoke(main, options)
        assert result.exit_code == 0, result.output


def test_dataset_tool_refuses_it(damaged: tuple[Path, Damage]) -> None:
    path, damage = damaged
    options = [f"--source={path}", f"--dest={path.parent / 'new.zip'}", "--workers=1"]
    result = CliRunner().invoke(dataset_tool.main, options)
    _assert_refused(result, path, damage.tool_message or damage.message)


def test_train_refuses_it(damaged: tuple[Path, Damage]) -> None:
    path, damage = damaged
    options = [f"--data={path}", f"--outdir={path.parent / 'runs'}", "--cond=1", "--metrics=none", "--dry-run"]
    _assert_refused(CliRunner().invoke(train.main, options), path, damage.message)
