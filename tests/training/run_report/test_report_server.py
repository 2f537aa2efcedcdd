"""The reports over HTTP, requested by a browser and by an attacker."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_folders import FACTS, make_run, served

from training.run_report import page
from training.run_report.run_folder import RunFolder
from training.run_report.server import ReportServer

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def outdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outdir = tmp_path_factory.mktemp("secret") / "runs"
    for number in range(2):
        make_run(outdir / f"{number:05d}-digits", num_snapshots=2, num_rows=10, kimg=8.0 + number)
    (outdir.parent / "secret.txt").write_text("secret", encoding="utf-8")
    (outdir / "notes").mkdir()
    return outdir


@pytest.fixture(scope="module")
def server(outdir: Path) -> Iterator[ReportServer]:
    with served(outdir) as server:
        yield server


def ask(server, path, method="GET", host="localhost") -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    connection.putrequest(method, path, skip_host=True)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body, dict(answer.getheaders())


def test_the_index_lists_the_runs_newest_first(server: ReportServer) -> None:
    status, page, headers = ask(server, "/")
    assert status == 200 and headers["X-Content-Type-Options"] == "nosniff"
    assert page.index('href="/00001-digits/"') < page.index('href="/00000-digits/"')
    assert "9 of 9 kimg" in page and "fid50k_full" in page and "data:image/webp" in page
    assert "notes" not in page


def test_runs_of_any_name_and_content_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (os.fsdecode(b"00001-\xff"), "00002-a b#?%41\u00e9", "00003-damaged"):
        make_run(tmp_path / name, num_snapshots=1, num_rows=1, facts=FACTS | {"status": "failed", "reason": "\ud800"})
    read = page.read_run

    def fail_for_one(path: Path) -> RunFolder:
        if path.name == "00003-damaged":
            raise ValueError("as no file of a run is known to do")
        return read(path)

    monkeypatch.setattr(page, "read_run", fail_for_one)
    with served(tmp_path) as server:
        status, index, _ = ask(server, "/")
        assert status == 200 and "00003-damaged" in index and "cannot be read" in index and "00001-\\udcff" in index
        links = re.findall('href="(/[^"]+)"', index)
        assert links == ["/00003-damaged/", "/00002-a%20b%23%3F%2541%C3%A9/", "/00001-%FF/"]
        assert [ask(server, link)[0] for link in links] == [500, 200, 200]


@pytest.mark.parametrize("path", ["/00000-digits/", "/00000-digits", "/00000%2Ddigits/?x=1"])
@pytest.mark.parametrize("host", ["127.0.0.1:8000", "LOCALHOST", "[::1]:8000"])
def test_a_report_is_made_anew(server: ReportServer, outdir: Path, path: str, host: str) -> None:
    status, page, _ = ask(server, path, host=host)
    assert status == 200
    assert "Losses" in page and 'href="/"' in page
    assert not (outdir / "00000-digits" / "report.html").exists()
    status, body, headers = ask(server, path, "HEAD")
    assert (status, body) == (200, "") and int(headers["Content-Length"]) > 10_000


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_only_reading_is_answered(server: ReportServer, method: str) -> None:
    status, _, headers = ask(server, "/", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", None]
)
def test_foreign_names_are_refused(server: ReportServer, host: str | None) -> None:
    status, body, _ = ask(server, "/", host=host)
    assert status == 403 and "digits" not in body


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "//etc/passwd", "/notes/", "/..", "/00002-digits/",
        "/00000-digits/../../secret.txt", "/00000-digits/stats.jsonl", "/00000-digits%00/", "http://localhost/../secret.txt",
    ],
)  # fmt: skip
def test_nothing_else_is_to_be_had(server: ReportServer, path: str) -> None:
    status, body, _ = ask(server, path)
    assert status == 404 and "secret" not in body


def test_a_port_in_use_and_a_missing_folder_get_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, str(ROOT / "train.py"), f"--outdir={tmp_path}", f"--serve={port}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"Error: --serve={port}: ") and "in use" in done.stderr
    with pytest.raises(ValueError, match="no such folder"):
        ReportServer(tmp_path / "missing", 0)


def test_serving_needs_no_torch_and_ends_with_ctrl_c(outdir: Path) -> None:
    code = f"import sys; sys.modules['torch'] = None; import train; train.main(['--outdir={outdir}', '--serve=0'])"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/00000-digits/")
    assert connection.getresponse().status == 200
    connection.close()
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert rest.strip() == "No longer shown."
