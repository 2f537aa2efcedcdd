"""A local HTTP server for the index and the reports of the runs in a folder, and nothing else."""

import contextlib
import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dnnlib.rundir import run_dirs
from training.run_report.page import make_index, make_page

ADDRESS = "127.0.0.1"  # not reachable from other machines
_OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")
_HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",  # beside the policy of each page
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class ReportServer(ThreadingHTTPServer):
    """Serves the runs of a folder on a local port; 0 = any free one. Raises ValueError if the folder or port is unusable."""

    daemon_threads = True

    def __init__(self, outdir: Path, port: int) -> None:
        self.outdir = outdir
        if not outdir.is_dir():
            raise ValueError(f"--outdir={outdir}: no such folder; give the one with the numbered run folders")
        try:
            super().__init__((ADDRESS, port), Handler)
        except OSError as error:
            raise ValueError(
                f"--serve={port}: the port cannot be used ({error.strerror}); end the program that uses it, or take another "
                f"one: --serve={port + 1 if 1023 < port < 65535 else 8000}"
            ) from error

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of a connection, such as a browser that went away."""


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the index and the run folders."""

    server: ReportServer
    timeout = 30  # seconds

    def do_GET(self) -> None:
        status, text, kind = self.answer()
        body = text.encode(errors="backslashreplace")  # names of files may not be UTF-8
        self.send_response(status)
        for name, value in (
            _HEADERS | {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body))}
        ).items():
            self.send_header(name, value)
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_GET

    def answer(self) -> tuple[HTTPStatus, str, str]:
        """Return the status, the text and its media type."""
        if self.command not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD are answered.\n", "text/plain"
        if not _OWN_HOST.fullmatch(
            self.headers.get("Host", "").lower()
        ):  # a foreign name that resolves to this machine
            return HTTPStatus.FORBIDDEN, f"Ask for {self.server.url}\n", "text/plain"
        try:
            page = self.page(unquote(urlsplit(self.path).path, errors="surrogateescape"))
        except Exception as error:
            return HTTPStatus.INTERNAL_SERVER_ERROR, f"This page cannot be made: {error}\n", "text/plain"
        if page is None:
            return HTTPStatus.NOT_FOUND, "There is no such run.\n", "text/plain"
        return HTTPStatus.OK, page, "text/html"

    def page(self, path: str) -> str | None:
        """Return the page at a path, or None. A path is only compared with names, never opened."""
        if path == "/":
            return make_index(self.server.outdir)
        runs = {f"/{run_dir.name}/": run_dir for run_dir in run_dirs(self.server.outdir)}
        run_dir = runs.get(path if path.endswith("/") else f"{path}/")
        return None if run_dir is None else make_page(run_dir, is_served=True)

    def version_string(self) -> str:
        return "Styleformer"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log no requests."""


def serve(outdir: Path, port: int) -> None:
    """Serve the runs of a folder until Ctrl-C; raises ValueError if the folder or port is unusable."""
    with ReportServer(outdir, port) as server:
        print(f"The runs in {outdir}: {server.url} (only from this machine; Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    print("\nNo longer shown.")
