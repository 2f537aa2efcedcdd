import random
import re
import stat
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from dnnlib.archive.file_tree import FileTree
from dnnlib.archive.zip_reader import ZipReader
from dnnlib.images.codec import encode_png
from dnnlib.names import normal_text


def _zip(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "name", ["/etc/a.png", "../a.png", "b/../../a.png", "..\\a.png", "C:/a.png", "c:a.png", "\\\\pc\\a.png"]
)
def test_members_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    path = _zip(tmp_path / "d.zip", ("fine..png", b""), (zipfile.ZipInfo(name), b""))
    with pytest.raises(ValueError, match=r"d\.zip has a member named .*absolute paths and \.\. are refused"):
        ZipReader(path).members()


@pytest.mark.parametrize("other", ["é/1.png", "./é/1.png", "é//1.png", "é\\1.png", "e\u0301/./1.png"])
def test_two_members_of_one_name_are_refused_and_both_shown(tmp_path: Path, other: str) -> None:
    path = _zip(tmp_path / "d.zip", ("é/1.png", b"old"), ("é/", b""), (zipfile.ZipInfo(other), b"new"))
    with pytest.raises(ValueError, match=r'd.zip has two members of one name: ".*1.png" and ".*1.png"') as raised:
        ZipReader(path).members()
    first, second = re.findall('"(.*?)"', str(raised.value))
    assert normal_text(first) != normal_text(second) or other == "é/1.png"  # they look different


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_contents(tmp_path: Path, method: int) -> None:
    rng = np.random.default_rng(0)
    members = [(name, rng.bytes(size)) for name, size in [("a", 5000), ("b/ü", 700), ("short", 3), ("empty", 0)]]
    path = _zip(tmp_path / "data.zip", *members, method=method)
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())  # as in a self-extracting one
    reader = ZipReader(path)
    for name, content in members:
        assert reader.read(name) == reader.open(name).read() == content


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_any_damage_gives_an_error_that_names_the_zip(tmp_path: Path, method: int) -> None:
    rng = random.Random(0)
    pngs = [encode_png(np.full((8, 8, 3), index, np.uint8)) for index in range(3)]
    path = _zip(tmp_path / "d.zip", *((f"a/{index}.png", png) for index, png in enumerate(pngs)), method=method)
    original, errors = path.read_bytes(), 0
    for _ in range(500):
        content = bytearray(original)
        for _ in range(rng.choice([1, 3, 10])):
            content[rng.randrange(len(content) // 2, len(content))] = rng.choice([0, 255, rng.randrange(256)])
        path.write_bytes(content[: rng.choice([len(content), rng.randrange(len(content))])])
        try:
            tree = FileTree(path)
            for name in tree.names():
                with tree.named_errors(name):
                    tree.read(name)
        except ValueError as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)
            errors += 1
    assert errors > 300


def test_links_are_refused_as_such(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("1.png")  # as zip -y writes it
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    path = _zip(tmp_path / "d.zip", (link, b"../images/1.png"))
    with pytest.raises(ValueError, match=r"is a link, .* pack the zip again with the files themselves"):
        ZipReader(path).read("1.png")


def _raw_name(path: Path, raw: bytes, extra: bytes = b"") -> Path:
    """Write a zip whose member's name is these bytes, without the flag of UTF-8."""
    info = zipfile.ZipInfo("x" * len(raw))
    info.extra = extra
    _zip(path, (info, b"content"))
    path.write_bytes(path.read_bytes().replace(b"x" * len(raw), raw))
    return path


@pytest.mark.parametrize(
    ("raw", "extra", "name"),
    [
        ("ü/1.png".encode(), b"", "ü/1.png"),  # UTF-8 without its flag, as some programs write it
        ("ü/1.png".encode("cp437"), b"", "ü/1.png"),
        (b"caf\x82.png", struct.pack("<HHBI", 0x7075, 13, 1, zlib.crc32(b"caf\x82.png")) + "犬.png".encode(), "犬.png"),
        (b"caf\x82.png", struct.pack("<HHBI", 0x7075, 13, 1, 0) + "犬.png".encode(), "café.png"),  # of another name
        (b"set\\cat\\1.png", b"", "set/cat/1.png"),
        ("e\u0301.png".encode(), b"", "é.png"),
        (b"./a//b.png", b"", "a/b.png"),
    ],
)
def test_names_are_decoded_and_normal(tmp_path: Path, raw: bytes, extra: bytes, name: str) -> None:
    extra = extra.replace(struct.pack("<H", 13), struct.pack("<H", len(extra) - 4)) if extra else b""
    reader = ZipReader(_raw_name(tmp_path / "d.zip", raw, extra))
    assert list(reader.members()) == [name]
    assert reader.read(name) == b"content"
