"""Files by address: downloaded once, kept by content, and refused in one line."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer, serving

from dnnlib import urls
from dnnlib.urls import AddressError, is_address, local_file


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as server:
        yield server


def test_paths_are_returned_as_they_are(tmp_path: Path) -> None:
    for path in ("a.pkl", "./runs/a.pkl", "/a/b.pkl", "~/a.pkl", "C:\\a.pkl", ""):
        assert local_file(path, tmp_path) == path and not is_address(path)


@pytest.mark.parametrize("has_etag", [True, False])
def test_a_file_is_kept_by_its_content(server: FileServer, tmp_path: Path, has_etag: bool) -> None:
    server.has_etag = has_etag
    server.files = {"/a/net.pkl?download=1": b"one\0", "/b/net.pkl": b"one\0"}
    address = f"{server.address}/a/net.pkl?download=1"
    path = Path(local_file(address, tmp_path))
    assert path.name == "net.pkl" and path.read_bytes() == b"one\0"
    assert local_file(address, tmp_path) == local_file(f"{server.address}/b/net.pkl", tmp_path) == str(path)
    assert [status for *_, status in server.log] == [200, 304 if has_etag else 200, 200]
    server.files["/a/net.pkl?download=1"] = b"two\0"
    assert Path(local_file(address, tmp_path)).read_bytes() == b"two\0" and path.read_bytes() == b"one\0"


def test_the_server_names_the_file(server: FileServer, tmp_path: Path) -> None:
    server.files["/get?id=7"] = b"one\0"
    server.headers = {"Content-Disposition": 'attachment; filename="../../a b.safetensors"'}
    path = Path(local_file(f"{server.address}/get?id=7", tmp_path))
    assert path.name == "_.._a_b.safetensors" and path.parents[2] == tmp_path


def test_the_copy_is_used_while_the_server_is_in_trouble_or_away(tmp_path, capsys) -> None:
    with serving() as server:
        server.files["/net.pkl"] = b"one\0"
        address = f"{server.address}/net.pkl"
        path = local_file(address, tmp_path)
        server.status = 503
        assert local_file(address, tmp_path) == path
        with pytest.raises(AddressError, match="HTTP status 503"):
            local_file(f"{server.address}/other.pkl", tmp_path)
    assert local_file(address, tmp_path) == path
    assert capsys.readouterr().out.count("cannot be reached") == 2
    Path(path).unlink()
    with pytest.raises(AddressError, match=r"net\.pkl: the download failed \(.*refused"):
        local_file(address, tmp_path)


def test_spaces_and_other_alphabets_in_addresses(server: FileServer, tmp_path: Path) -> None:
    server.files["/my%20caf%C3%A9.pkl"] = b"one\0"
    for name in ("my café.pkl", "my%20caf%C3%A9.pkl"):
        assert Path(local_file(f"{server.address}/{name}", tmp_path)).read_bytes() == b"one\0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the download failed .HTTP status 404"),
        (b"<!DOCTYPE html><html>Sign in</html>", "this is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "this is a Git-LFS pointer"),
        (b"", "this is empty"),
        (b'{"error": "Entry not found"}', "this is a text"),
        (b"x" * 101, "larger than the limit of 100 B"),
        (b"hal\0", r"net\.pkl: the download (failed|ended after 4 of 8 bytes)"),  # breaks off
    ],
)
def test_what_is_no_file_is_named_and_not_kept(server, tmp_path, monkeypatch, content, message) -> None:
    monkeypatch.setattr(urls, "MAX_BYTES", 100)
    if content is not None:
        server.files["/net.pkl"], server.missing_bytes = content, 4 * content.startswith(b"hal")
    with pytest.raises(AddressError, match=message) as caught:
        local_file(f"{server.address}/net.pkl", tmp_path)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://bucket/net.pkl", "s3:// is not supported; use https://"),
        ("file:///etc/passwd", "file:// is not supported"),
        ("http://", "the download failed"),
        ("http://[::1", "the download failed"),
        ("hf://user/repo", "write hf://user/repo/file"),
        ("hf://user/repo/net.pkl", "pip install huggingface_hub"),
    ],
)
def test_other_addresses_are_refused(tmp_path, monkeypatch, address, message) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(AddressError, match=message):
        local_file(address, tmp_path)
