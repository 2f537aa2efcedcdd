import os
import pickle
import random
import shutil
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dnnlib.archive.file_tree import FileTree
from dnnlib.archive.zip_reader import ChangedError, ZipReader
from dnnlib.images.codec import encode_png, read_layout


def _zip(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def _member(name: str, mode: int = 0o100644, method: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr, member.compress_type = mode << 16, method
    return member


def _declare(path: Path, name: str, offset: int, fmt: str, value: int) -> None:
    """Overwrite a field, `offset` bytes behind the start of an entry, in the zip's table."""
    content = bytearray(path.read_bytes())
    entry = content.rindex(name.encode()) - 46
    struct.pack_into(fmt, content, entry + offset, value)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name",
    ["/etc/a.png", "../a.png", "b/../../a.png", "..\\a.png", "C:/a.png", "c:\\a.png", "c:a.png", "\\\\pc\\a.png"],
)
def test_members_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    path = _zip(tmp_path / "d.zip", ("fine..png", b""), (name, b""))
    with pytest.raises(ValueError, match=r"d\.zip has a member named .*absolute paths and \.\. are refused"):
        ZipReader(path).members()


@pytest.mark.parametrize("replacement", [b"a\0c.png", b"a\nc.png", b"a\x1bc.png"])
def test_control_characters_in_names_are_refused(tmp_path: Path, replacement: bytes) -> None:
    path = _zip(tmp_path / "d.zip", ("abc.png", b""))
    path.write_bytes(path.read_bytes().replace(b"abc.png", replacement))
    with pytest.raises(ValueError, match=r"member named 'a\\x?..*c.png': control characters"):
        ZipReader(path).members()


@pytest.mark.parametrize("other", ["a/1.png", "./a/1.png", "a//1.png", "a\\1.png", "a/./1.png"])
def test_two_members_of_one_name_are_refused(tmp_path: Path, other: str) -> None:
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.mkdir("a")
        archive.writestr("a/1.png", "old")
        if other == "a/1.png":
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr(other, "new")
        else:
            archive.writestr(other, "new")
    with pytest.raises(ValueError, match=r"d.zip has two members named 'a/1.png'; pack the zip again, each file once"):
        ZipReader(tmp_path / "d.zip").members()


def test_unusual_names_that_are_fine(tmp_path: Path) -> None:
    path = _zip(tmp_path / "d.zip", ("./a..png", b"1"), ("b\\2.png", b"2"), ("é ☃.png", b"3"), ("c/", b""))
    reader = ZipReader(path)
    assert [reader.open(name).read() for name in list(reader.members())[:3]] == [b"1", b"2", b"3"]


@pytest.mark.parametrize("mode", [0o120777, 0o060600, 0o010600])  # a link, a device, a named pipe
def test_special_files_are_refused(tmp_path: Path, mode: int) -> None:
    reader = ZipReader(_zip(tmp_path / "d.zip", (_member("a.png", mode), b"/etc/passwd")))
    with pytest.raises(ValueError, match="is a link or another special file"):
        reader.open("a.png")


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "d.zip", ("a.png", b"12345"))
    _declare(path, "a.png", 8, "<H", 1)
    with pytest.raises(ValueError, match="is encrypted; unpack the zip with its password"):
        ZipReader(path).open("a.png")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_rare_methods_are_refused(tmp_path: Path, method: int) -> None:
    reader = ZipReader(_zip(tmp_path / "d.zip", ("a.png", bytes(1000)), method=method))
    with pytest.raises(ValueError, match=rf"rare method \(number {method}\); pack the zip again"):
        reader.open("a.png")


def test_bombs_are_refused(tmp_path: Path) -> None:
    members = (("small", bytes(2**24)), ("large", bytes(2**24 + 1)), ("dense", os.urandom(90_000) + bytes(2**24)))
    reader = ZipReader(_zip(tmp_path / "d.zip", *members, method=zipfile.ZIP_DEFLATED))
    for name in ("small", "dense"):
        assert reader.open(name).read(5) is not None
    with pytest.raises(ValueError, match=r"would unpack from 15.9 KiB to 16.0 MiB, as a decompression bomb does"):
        reader.open("large")


def test_huge_member_is_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "d.zip", ("a.png", bytes(100)))
    _declare(path, "a.png", 24, "<I", 3 * 2**30)
    tree = FileTree(path)
    with pytest.raises(ValueError, match=r"^a.png in .*d.zip would unpack to 3.0 GiB"), tree.named_errors("a.png"):
        tree.read("a.png")


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "d.zip", ("a.png", bytes(100)), ("b.png", bytes(100)))
    _declare(path, "b.png", 20, "<I", 400)
    with pytest.raises(ValueError, match=r"d.zip has members that overlap, as in a decompression bomb"):
        ZipReader(path).members()


def test_no_more_is_unpacked_than_a_member_declares(tmp_path: Path) -> None:
    """A member that unpacks to 200 MiB and says 100 KiB costs no more memory than one that is right."""
    path = _zip(tmp_path / "d.zip", ("a.webp", b"RIFF....WEBP" + bytes(200 * 2**20)), method=zipfile.ZIP_DEFLATED)
    _declare(path, "a.webp", 24, "<I", 100 * 1024)
    tree = FileTree(path)
    tree.names()
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"a.webp in .* Bad CRC"), tree.named_errors("a.webp"):
        tree.read("a.webp")
    with pytest.raises(ValueError, match="not an image"), tree.open("a.webp") as file:
        read_layout(file)
    with pytest.raises(zipfile.BadZipFile), tree.open("a.webp") as file:
        file.read()
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_compressed_members_can_be_searched(tmp_path: Path) -> None:
    content = random.Random(0).randbytes(50_000)
    with ZipReader(_zip(tmp_path / "d.zip", ("a", content), method=zipfile.ZIP_DEFLATED)).open("a") as file:
        assert (file.read(10), file.seek(40_000), file.read(10)) == (content[:10], 40_000, content[40_000:40_010])
        assert (file.seek(-5, os.SEEK_END), file.tell(), file.read()) == (49_995, 49_995, content[-5:])
        assert (file.seek(3), file.read()) == (3, content[3:])


def test_removed_file_is_readable_while_open(tmp_path: Path) -> None:
    reader = ZipReader(_zip(tmp_path / "d.zip", ("a", b"content")))
    reader.members()
    (tmp_path / "d.zip").unlink()
    assert reader.open("a").read() == b"content"
    with pytest.raises(ChangedError, match=r"d.zip is gone"):
        reader.check()


def test_touched_and_copied_files_are_the_same(tmp_path: Path) -> None:
    path = _zip(tmp_path / "d.zip", ("a", b"content"))
    reader = ZipReader(path)
    reader.members()
    os.utime(path, (0, 0))
    assert reader.open("a").read() == b"content"
    shutil.copy(path, tmp_path / "copy")
    os.replace(tmp_path / "copy", path)
    reader.check()
    assert reader.open("a").read() == b"content"


def test_replaced_file_is_noticed_by_a_check_and_by_other_processes(tmp_path: Path) -> None:
    path = _zip(tmp_path / "d.zip", ("a", b"content"))
    tree = FileTree(path)
    tree.names()
    copy = pickle.loads(pickle.dumps(tree))
    os.replace(_zip(tmp_path / "e.zip", ("a", b"another")), path)
    assert tree.read("a") == b"content"  # through the handle that is open
    for look in (tree.check, copy.names, lambda: copy.read("a")):
        with pytest.raises(ChangedError, match=r"d.zip has been replaced since it was opened; put the original back"):
            look()
    path.unlink()
    with pytest.raises(ChangedError, match=r"d.zip cannot be read: No such file"):
        pickle.loads(pickle.dumps(copy)).names()


def test_file_changed_in_place_is_noticed_at_once(tmp_path: Path) -> None:
    path = _zip(tmp_path / "d.zip", ("a", b"content"))
    reader = ZipReader(path)
    reader.members()
    original = path.read_bytes()
    path.write_bytes(_zip(tmp_path / "e.zip", ("a", b"another")).read_bytes())
    with pytest.raises(ChangedError, match="replaced since"):
        reader.open("a")
    path.write_bytes(original[:40])
    with pytest.raises(ChangedError, match=r"damaged zip file .* It could be read before"):
        reader.open("a")
    path.write_bytes(original)
    assert reader.open("a").read() == b"content"


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


def test_checksum_of_the_content_is_compared(tmp_path: Path) -> None:
    path = _zip(tmp_path / "d.zip", ("a", b"content"))
    path.write_bytes(path.read_bytes().replace(b"content", b"Content", 1))
    tree = FileTree(path)
    with pytest.raises(ValueError, match=r"a in .*d.zip cannot be read: Bad CRC-32"), tree.named_errors("a"):
        tree.read("a")


def test_start_is_what_reading_gives(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "data.zip"
    extra = b"\x99\x99" + (300).to_bytes(2, "little") + bytes(300)  # longer than what is read at once
    with zipfile.ZipFile(path, "w") as archive:
        for index, (name, size) in enumerate(
            [("a.png", 5000), ("b/ü.png", 700), ("short", 3), ("empty", 0), ("c", 600)]
        ):
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED if index % 2 else zipfile.ZIP_STORED
            info.extra = extra if name == "c" else b""
            archive.writestr(info, rng.bytes(size))
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())  # something before it, as in a self-extracting one
    reader = ZipReader(path)
    for name in reader.members():
        assert reader.start(name, 512) == reader.read(name, 10**6)[:512]


def test_start_refuses_what_open_refuses(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link.png")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr(info, b"/etc/passwd")
    with pytest.raises(ValueError, match="is a link"):
        ZipReader(tmp_path / "data.zip").start("link.png", 8)


def test_start_checks_what_it_has_read_whole(tmp_path: Path) -> None:
    path = _zip(tmp_path / "data.zip", ("a.png", b"x" * 3000))
    path.write_bytes(path.read_bytes().replace(b"xxx", b"xyx", 1))
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        ZipReader(path).start("a.png", 8)
