"""Where weights are searched, what is enforced, and what people are told."""

import dataclasses
import hashlib
from pathlib import Path

import pytest
from file_server import serving

from metrics.registry import DETECTORS, get, prepare
from metrics.weights import published as weights
from metrics.weights.published import INCEPTION, MissingWeights, Source, WeightsFile, command, find, obtain, require

CONTENT = b"weights" * 1000
FILE = WeightsFile(
    key="test",
    what="test weights",
    name="test.pth",
    addresses=("http://127.0.0.1:9/test.pth", "http://127.0.0.1:9/other.pth"),
    num_bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    other_sha256=(hashlib.sha256(b"another layout").hexdigest(),),
)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (FILE.variable, INCEPTION.variable, weights.MIRROR_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def place(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_order_of_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(cache_folder=tmp_path / "cache")
    assert find(FILE, source) is None
    place(tmp_path / "cache" / "test.pth", CONTENT)
    found = find(FILE, source)
    assert found is not None and found.path == tmp_path / "cache" / "test.pth" and found.is_published
    assert found.sha256 == FILE.sha256
    monkeypatch.setenv(FILE.variable, str(place(tmp_path / "by-variable", b"of my own")))
    found = require(FILE, source)
    assert found.path == tmp_path / "by-variable" and not found.is_published
    assert found.sha256 == hashlib.sha256(b"of my own").hexdigest()
    by_path = dataclasses.replace(source, paths={"test": place(tmp_path / "by-path", b"another layout")})
    assert obtain(FILE, by_path).path == tmp_path / "by-path" and obtain(FILE, by_path).is_published


def test_download_into_the_cache_from_a_mirror(tmp_path, monkeypatch, capsys):
    place(tmp_path / "mirror" / "test.pth", CONTENT)
    monkeypatch.setenv(weights.MIRROR_VARIABLE, f"{(tmp_path / 'mirror').as_uri()}/")
    source = Source(cache_folder=tmp_path / "new" / "cache")
    found = obtain(FILE, source)
    assert found.path == tmp_path / "new" / "cache" / "test.pth" and found.path.read_bytes() == CONTENT
    assert capsys.readouterr().err == "Downloading test.pth (7,000 bytes)\n"
    assert (tmp_path / "mirror").as_uri() in command(FILE, source)
    monkeypatch.setenv(weights.MIRROR_VARIABLE, "example.org/weights")
    with pytest.raises(ValueError, match=r"STYLEFORMER_MIRROR=example.org/weights is not an address"):
        obtain(FILE, Source(cache_folder=tmp_path / "other"))


@pytest.mark.parametrize(
    ("name", "message"), [("missing", "HTTP Error 404"), ("wrong", "invalid hash value"), ("cut", "invalid hash value")]
)
def test_wrong_answers_are_refused_and_another_address_is_tried(name: str, message: str, tmp_path: Path) -> None:
    source = Source(cache_folder=tmp_path / "cache", bar=True)
    with serving() as server, serving() as other:
        server.files = {"/wrong.pth": b"x" * len(CONTENT), "/cut.pth": CONTENT[:-1]}
        server.missing_bytes = int(name == "cut")
        other.files["/test.pth"] = CONTENT
        address = f"{server.address}/{name}.pth"
        bad = dataclasses.replace(FILE, addresses=(address,))
        with pytest.raises(MissingWeights, match=rf"(?s){address}: {message}.*7,000 bytes.*curl -L") as caught:
            obtain(bad, source)
        assert FILE.sha256 in str(caught.value)
        assert not list((tmp_path / "cache").iterdir())
        found = obtain(dataclasses.replace(bad, addresses=(address, f"{other.address}/test.pth")), source)
    assert found.path.read_bytes() == CONTENT and [found.path] == list((tmp_path / "cache").iterdir())


def test_of_several_processes_the_first_of_a_machine_downloads(tmp_path, monkeypatch):
    file = dataclasses.replace(FILE, addresses=(place(tmp_path / "test.pth", CONTENT).as_uri(),))
    kind = dataclasses.replace(DETECTORS[get("is5k").detector], readers={file: Path.read_bytes})
    monkeypatch.setitem(DETECTORS, get("is5k").detector, kind)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    prepare(["is5k"], Source(cache_folder=tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()
    monkeypatch.setenv("LOCAL_RANK", "0")
    prepare(["is5k"], Source(cache_folder=tmp_path / "cache"))
    assert (tmp_path / "cache" / "test.pth").read_bytes() == CONTENT
