import os
import pickle
import zipfile
from pathlib import Path

import pytest

from dnnlib.file_tree import FileTree, natural_key


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


def test_names_and_contents(tree: FileTree) -> None:
    assert sorted(tree.names()) == ["a.txt", "b/10.txt", "b/2.txt", "crc.txt"]
    assert tree.read("b/2.txt") == b"b/2.txt" * 100
    assert tree.crc("crc.txt") == 0xCBF43926  # the check value of CRC-32
    assert tree.exists("a.txt")
    assert not tree.exists("b")
    assert not tree.exists("c.txt")


def test_pickle_reads_the_same(tree: FileTree) -> None:
    tree.read("a.txt")
    copy = pickle.loads(pickle.dumps(tree))
    assert copy.read("b/2.txt") == tree.read("b/2.txt")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_gets_its_own_file_position(tree: FileTree) -> None:
    expected = {name: tree.read(name) for name in tree.names()}
    with tree.open("a.txt") as file:
        child = os.fork()
        if child == 0:
            same = all(tree.read(name) == content for name, content in expected.items() for _ in range(20))
            os._exit(0 if same else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert file.read() == expected["a.txt"]


def test_natural_order() -> None:
    names = ["img10.png", "img9.png", "a/x.png", "a10/x.png", "a9/x.png", "img010.png", "2.png", "10.png"]
    ordered = ["2.png", "10.png", "a/x.png", "a9/x.png", "a10/x.png", "img9.png", "img010.png", "img10.png"]
    assert sorted(names, key=natural_key) == ordered


def test_bad_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.zip does not exist"):
        FileTree(tmp_path / "nowhere.zip")
    (tmp_path / "broken.zip").write_bytes(b"PK but no zip")
    with pytest.raises(ValueError, match=r"broken.zip is neither a folder nor a readable zip"):
        FileTree(tmp_path / "broken.zip")
