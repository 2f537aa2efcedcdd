"""Downloads from a server of our own: whole, verified, resumed, refused."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dnnlib.download import DownloadError, download, file_sha256

CONTENT = os.urandom(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT at every address, except for what the path says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []  # of each request

    def address(self, kind: str = "whole") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{kind}/file.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        kind, wanted = self.path.split("/")[1], self.headers["Range"]
        self.server.ranges.append(wanted)
        if kind == "missing":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and kind != "norange" else 0
        content = {"short": CONTENT[:-1], "wrong": b"x" * len(CONTENT)}.get(kind, CONTENT)[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if kind == "slow":
            time.sleep(0.3)
        limit = {"broken": 1_000_000, "norange": 1_000_000 if len(self.server.ranges) == 1 else None, "dead": 0}.get(
            kind
        )
        self.wfile.write(content[:limit])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def fetch(path: Path, *addresses: str) -> None:
    download(addresses, path, len(CONTENT), SHA256)


def test_file_arrives_whole_in_a_new_folder(server: Server, tmp_path: Path) -> None:
    path, seen = tmp_path / "a" / "b" / "file.bin", []
    download([server.address()], path, len(CONTENT), SHA256, lambda done, total: seen.append((done, total)))
    assert file_sha256(path) == SHA256
    assert seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT)) and len(seen) > 3
    assert list(path.parent.iterdir()) == [path]


def test_broken_connections_are_gone_on_from(server: Server, tmp_path: Path) -> None:
    fetch(tmp_path / "file.bin", server.address("broken"))
    assert server.ranges == [None, "bytes=1000000-", "bytes=2000000-"]
    assert file_sha256(tmp_path / "file.bin") == SHA256


def test_server_that_sends_whole_files_only(server: Server, tmp_path: Path) -> None:
    fetch(tmp_path / "file.bin", server.address("norange"))
    assert server.ranges == [None, "bytes=1000000-"]
    assert file_sha256(tmp_path / "file.bin") == SHA256


def test_a_later_call_goes_on_where_an_earlier_one_ended(server: Server, tmp_path: Path) -> None:
    part = tmp_path / ".file.bin.part"
    part.write_bytes(CONTENT[:2_500_000])
    with pytest.raises(DownloadError, match=r"ended after 2,500,000 of 3,000,000 bytes"):
        fetch(tmp_path / "file.bin", server.address("dead"))
    fetch(tmp_path / "file.bin", server.address())
    assert server.ranges == ["bytes=2500000-", "bytes=2500000-"]
    assert file_sha256(tmp_path / "file.bin") == SHA256 and not part.exists()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "HTTP Error 404: Not Found"),
        ("short", "2,999,999 bytes, not 3,000,000"),
        ("wrong", "its content has sha256"),
    ],
)
def test_wrong_answers_are_refused_and_another_address_is_tried(
    kind: str, message: str, server: Server, tmp_path: Path
) -> None:
    with pytest.raises(DownloadError, match=message):
        fetch(tmp_path / "file.bin", server.address(kind))
    assert not list(tmp_path.iterdir())
    fetch(tmp_path / "file.bin", server.address(kind), server.address())
    assert file_sha256(tmp_path / "file.bin") == SHA256


def test_a_damaged_beginning_is_noticed(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".file.bin.part").write_bytes(bytes(1000))
    with pytest.raises(DownloadError, match="its content has sha256"):
        fetch(tmp_path / "file.bin", server.address())
    fetch(tmp_path / "file.bin", server.address())
    assert file_sha256(tmp_path / "file.bin") == SHA256


def test_unreachable_addresses_fail_quickly(tmp_path: Path) -> None:
    started_sec = time.monotonic()
    with pytest.raises(DownloadError, match=r"http://127\.0\.0\.1:9/x: .*refused.*; file:///none/x: "):
        fetch(tmp_path / "file.bin", "http://127.0.0.1:9/x", "file:///none/x")
    assert time.monotonic() - started_sec < 5
    assert not list(tmp_path.iterdir())


def test_a_file_address_serves_as_a_mirror(tmp_path: Path) -> None:
    (tmp_path / "mirror.bin").write_bytes(CONTENT)
    fetch(tmp_path / "file.bin", (tmp_path / "mirror.bin").as_uri())
    assert file_sha256(tmp_path / "file.bin") == SHA256


@pytest.mark.skipif(sys.platform == "win32", reason="no file locks there")
def test_of_several_processes_one_fetches(server: Server, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from dnnlib.download import download; download([sys.argv[1]], pathlib.Path(sys.argv[2]), "
    )
    code += f"{len(CONTENT)}, {SHA256!r})"
    command = [sys.executable, "-c", code, server.address("slow"), str(tmp_path / "file.bin")]
    processes = [subprocess.Popen(command, cwd=Path(__file__).parents[2]) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert len(server.ranges) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "file.bin"] and file_sha256(tmp_path / "file.bin") == SHA256
