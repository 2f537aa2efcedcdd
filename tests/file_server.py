"""A server on loopback: files with ETags, and as much of Hugging Face's protocol as one download and one commit need."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer
from typing import Any


class FileServer(ThreadingHTTPServer):
    """Serves `files` by path; keeps the log of (method, path, status), and what was committed to the hub."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.log: list[tuple[str, str, int]] = []
        self.committed: dict[str, bytes] = {}
        self.has_etag, self.missing_bytes, self.headers = True, 0, dict[str, str]()
        self.status = 200  # of every reply, where it is not 200

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        """Send a file, or 304 where the client has it."""
        if self.server.status != 200:
            return self.reply(self.server.status, b"")
        content = self.server.files.get(self.path)
        if content is None:
            return self.reply(404, b"gone", {"X-Error-Code": "EntryNotFound"})
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        if self.headers.get("If-None-Match") == etag:
            return self.reply(304, b"")
        headers = {"X-Repo-Commit": "a" * 40} | ({"ETag": etag} if self.server.has_etag else {}) | self.server.headers
        return self.reply(200, content, headers)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """The hub's calls for creating a repository and committing to it."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer: dict[str, Any] = {}
        if self.path == "/api/repos/create":
            answer = {"url": f"{self.server.address}/user/repo", "name": "user/repo", "id": "user/repo"}
        elif "/preupload/" in self.path:
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            answer = {"files": [{"path": file["path"]} | modes for file in json.loads(body)["files"]]}
        elif re.search("/commit/", self.path):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.committed[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            answer = {"commitUrl": f"{self.server.address}/user/repo/commit/1", "commitOid": "1", "success": True}
        self.reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def reply(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.server.log.append((self.command, self.path, status))
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) + self.server.missing_bytes))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@contextmanager
def running(server: BaseServer) -> Iterator[None]:
    """Have a server answer in a thread while the context lasts."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@contextmanager
def serving() -> Iterator[FileServer]:
    """A server that runs while the context lasts."""
    with FileServer() as server, running(server):
        yield server
