import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dnnlib.images.codec import encode_png
from dnnlib.names import normal_name, normal_text, printable


@pytest.mark.parametrize(
    ("spelled", "normal"),
    [
        ("a/b.png", "a/b.png"),
        ("./a/b.png", "a/b.png"),
        ("a//b/./c.png", "a/b/c.png"),
        ("a\\b.png", "a/b.png"),
        (".\\a\\.\\b.png", "a/b.png"),
        ("cafe\u0301.png", "café.png"),
        ("\u1112\u1161\u11ab.png", "한.png"),
        ("caf\udce9.png", "caf%E9.png"),
        ("a\n\x1b[31m.png", "a%0A%1B[31m.png"),
        ("..png/.hidden", "..png/.hidden"),
        ("a/..b./c.png", "a/..b./c.png"),
    ],
)
def test_normal_name(spelled: str, normal: str) -> None:
    assert normal_name(spelled) == normal
    assert normal_name(normal) == normal


def test_text_is_printable() -> None:
    assert normal_text("cafe\u0301 \udcff\0") == "café %FF%00"
    for text, shown in {"café 犬": "café 犬", "a\nb": "a\\nb", "\u202egnp": "\\u202egnp", "\udce9": "\\udce9"}.items():
        assert printable(text) == shown


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii"])
def test_names_of_any_bytes_are_packed_and_shown(tmp_path: Path, encoding: str) -> None:
    source = tmp_path / "caf\udce9"
    for name in ("cat\n\x1b[31m", "dog\udcff", "cafe\u0301"):
        (source / name).mkdir(parents=True)
        (source / name / "1.png").write_bytes(encode_png(np.zeros((32, 32, 3), np.uint8)))
    program = Path(__file__).parents[2] / "dataset_tool.py"
    command = [sys.executable, program, f"--source={source}", "--labels-from-folders"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    dest = tmp_path / "n\udce9w"
    for option in (f"--dest={dest}", "--inspect"):
        done = subprocess.run([*command, option], env=environment, capture_output=True, check=True)
        assert b"dog%FF" in done.stdout and b"\x1b" not in done.stdout
    names = json.loads((dest / "dataset.json").read_text())["class_names"]
    assert names == ["café", "cat%0A%1B[31m", "dog%FF"]
