import os
import pickle
import zipfile
from pathlib import Path

import pytest

from dnnlib.archive.file_tree import FileTree, natural_key


@pytest.fixture(params=["folder", "zip", "compressed zip"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> FileTree:
    """Return the same files as a folder and as zips."""
    folder = tmp_path / "data"
    for name in ["b/2.txt", "b/10.txt", "a.txt", ".hidden", "b/.DS_Store", "__MACOSX/a.txt"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name * 100)
    (folder / "crc.txt").write_text("123456789")
    if request.param == "folder":
        return FileTree(folder)
    method = zipfile.ZIP_STORED if request.param == "zip" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(tmp_path / "data.zip", "w", method) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return FileTree(tmp_path / "data.zip")


def test_names_and_contents_of_bounded_size(tree: FileTree) -> None:
    assert sorted(tree.names()) == ["a.txt", "b/10.txt", "b/2.txt", "crc.txt"]
    assert tree.read("b/2.txt") == b"b/2.txt" * 100
    assert tree.crcs(["crc.txt"]) == [0xCBF43926]  # the check value of CRC-32
    assert tree.sizes(["crc.txt", "a.txt"]) == [9, 500]
    assert tree.exists("a.txt")
    assert not tree.exists("b")
    assert not tree.exists("c.txt")
    assert len(tree.read("crc.txt", max_bytes=9)) == 9
    with pytest.raises(ValueError, match="has 9 B, more than the limit of 8 B"):
        tree.read("crc.txt", max_bytes=8)


def test_natural_order() -> None:
    names = ["img10.png", "img9.png", "a/x.png", "a10/x.png", "a9/x.png", "img010.png", "2.png", "10.png"]
    ordered = ["2.png", "10.png", "a/x.png", "a9/x.png", "a10/x.png", "img9.png", "img010.png", "img10.png"]
    assert sorted(names, key=natural_key) == ordered


def test_bad_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.zip does not exist"):
        FileTree(tmp_path / "nowhere.zip")
    (tmp_path / "broken.zip").write_bytes(b"PK but no zip")
    with pytest.raises(ValueError, match=r"broken.zip is cut short or damaged"):
        FileTree(tmp_path / "broken.zip")
    (tmp_path / "page.zip").write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(ValueError, match=r"page.zip is a web page.*. A data set is a folder or a zip file"):
        FileTree(tmp_path / "page.zip")


def test_unusual_names_of_a_folder_are_normal_and_read(tmp_path: Path) -> None:
    spelled = {"a\n\udcff.png": "a%0A%FF.png", "e\u0301.png": "é.png", "x\\1.png": "x/1.png"}
    for name in spelled:
        (tmp_path / name).write_text(name, errors="surrogateescape")
    tree = FileTree(tmp_path)
    assert sorted(tree.names()) == sorted(spelled.values())
    copy = pickle.loads(pickle.dumps(tree))
    for name, normal in spelled.items():
        assert tree.read(normal) == copy.read(normal) == name.encode(errors="surrogateescape")
    assert tree.origin("a%0A%FF.png") == f"a%0A%FF.png in {tmp_path}"
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "1.png").touch()
    with pytest.raises(ValueError, match=r'two files of one name: "x.{1,2}1.png" and "x.{1,2}1.png"; rename'):
        FileTree(tmp_path).names()


CLUTTER = {
    "@eaDir": ["@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "b/@eaDir/2.png/SYNOPHOTO_THUMB_XL.jpg"],
    "__MACOSX": ["__MACOSX/b/._2.png"],
    "hidden": [".DS_Store", "b/._2.png", ".thumbnails/normal/1.png", "b/.@__thumb/2.png", ".Trash-1000/files/1.png"],
    "Thumbs.db": ["Thumbs.db", "b/Thumbs.db"],
    "desktop.ini": ["desktop.ini"],
    "#recycle": ["#recycle/1.png"],
    "$RECYCLE.BIN": ["$RECYCLE.BIN/S-1-5/$R1.png"],
}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_clutter_is_skipped_and_counted(tmp_path: Path, kind: str) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for name in ["1.png", "b/2.png", *(name for names in CLUTTER.values() for name in names)]:
            archive.writestr(name, b"")
        archive.extractall(tmp_path / "data")
    tree = FileTree(tmp_path / ("data.zip" if kind == "zip" else "data"))
    assert sorted(tree.names()) == ["1.png", "b/2.png"]
    assert tree.clutter() == {kind: len(names) for kind, names in CLUTTER.items()}


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.png").touch()
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "2.png").touch()
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "sub" / "up").symlink_to(tmp_path / "data")
    assert sorted(FileTree(tmp_path / "data").names()) == ["2.png", "cat/1.png"]


def test_links_between_folders_end_where_they_lead_back(tmp_path: Path) -> None:
    for name, other in ("ab", "ba"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / f"{name}.png").touch()
        (tmp_path / "data" / name / "more").symlink_to(f"../{other}")
    assert sorted(FileTree(tmp_path / "data").names()) == ["a/a.png", "a/more/b.png", "b/b.png", "b/more/a.png"]


def test_links_through_another_folder_do_not_lead_back(tmp_path: Path) -> None:
    for name in ("data", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.png").touch()
    (tmp_path / "data" / "out").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "data")
    assert sorted(FileTree(tmp_path / "data").names()) == ["data.png", "out/other.png"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_sources_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "data", tmp_path / "data" / "sub"):
        path.mkdir()
    (tmp_path / "d.zip").touch()
    for path in (tmp_path / "data" / "sub", tmp_path / "d.zip"):
        path.chmod(0)
    with pytest.raises(ValueError, match=r"sub cannot be read: Permission denied"):
        FileTree(tmp_path / "data").names()
    with pytest.raises(ValueError, match=r"d.zip cannot be read: permission denied"):
        FileTree(tmp_path / "d.zip")
    (tmp_path / "data" / "sub").chmod(0o700)
