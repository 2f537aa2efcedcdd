"""generate.py with networks by address, and pushing them: a server on loopback."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from file_server import FileServer, serving
from PIL import Image
from scripts import generate as run

from dnnlib.files import file_sha256
from sampling.hub import model_card

ROOT = Path(__file__).parents[1]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FileServer]:
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    with serving() as server:
        yield server


def test_a_network_by_address_makes_the_same_images(server: FileServer, snapshot: Path, tmp_path: Path) -> None:
    server.files["/net.pkl"] = snapshot.read_bytes()
    for command in ([], ["classes"]):
        for name, source in (("here", snapshot), ("there", f"{server.address}/net.pkl")):
            run(*command, f"--network={source}", "--seeds=0,1", f"--outdir={tmp_path / name}")
    for path in (tmp_path / "here").iterdir():
        assert (tmp_path / "there" / path.name).read_bytes() == path.read_bytes()
    assert [status for *_, status in server.log] == [200, 304]


def test_files_that_are_not_networks_are_named(snapshot: Path, tmp_path: Path) -> None:
    contents = {
        "page.pkl": (b"\n<html>Not found</html>", "this is a web page"),
        "page.safetensors": (b"<!doctype html>", "this is a web page"),
        "s3.pkl": (b"<!-- --><Error>AccessDenied</Error>", "this is a web page"),
        "pointer.pkl": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "this is a Git-LFS pointer"),
        "empty.pkl": (b"", "this is empty"),
        "log.txt": (b'{"error": 1}', "this is a text, which begins '{\"error\":'; a network is a file such as"),
        "styles.npy": (b"\x93NUMPY\x01\x00", "this is a NumPy array"),
        "part.pkl": (snapshot.read_bytes()[:2000], "this is cut short or damaged"),
    }
    for name, (content, _) in contents.items():
        (tmp_path / name).write_bytes(content)
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), tmp_path / "script.pt")
    with tarfile.open(tmp_path / "net.tar", "w") as tar:
        tar.add(snapshot)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("00000/img.png", b"")
    for folder in ("folder", "run", "runs/00000"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(tmp_path / "folder" / "a.png")
    for folder in ("run", "runs/00000"):
        (tmp_path / folder / "network-snapshot-000012.pkl").touch()
    expected = {name: message for name, (_, message) in contents.items()} | {
        "script.pt": "this is a TorchScript program, which is not run",
        "net.tar": "this is an archive (tar); unpack it first",
        "images.zip": "this is a data set",
        "folder": "this is a data set",
        "folder/a.png": "this is an image (PNG)",
        "run": "this is a folder; name a file in it, such as",
        "runs": f"such as {tmp_path}/runs/00000/network-snapshot-000012.pkl",
        "gone.pkl": "there is no such file",
    }
    for name, message in expected.items():
        output = run(f"--network={tmp_path / name}", "--seeds=0", f"--outdir={tmp_path / 'out'}", ok=False)
        assert message in output and f"{name}: " in output
    assert not (tmp_path / "out").exists()


def test_model_card_has_the_networks_own_numbers(snapshot: Path, tmp_path: Path) -> None:
    network = Path(shutil.copy(snapshot, tmp_path))
    row = {"metric": "fid5k_full", "num_gen": 5000, "num_real": 300, "comparable_to_published": True}
    rows = [
        row | {"value": 20.0, "snapshot": "net.pkl", "snapshot_hash": "0"},  # an older file of this name
        row | {"value": 12.345, "snapshot": "net.pkl", "snapshot_hash": file_sha256(network)},
        row | {"value": 30.0, "snapshot": "other.pkl", "snapshot_hash": "1"},
    ]
    nan = {"metric": "kid5k_full", "value": None, "snapshot": "net.pkl", "snapshot_hash": file_sha256(network)}
    (network.parent / "metric-kid5k_full.jsonl").write_text(json.dumps(row | nan) + "\n")
    (network.parent / "metric-fid5k_full.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    card = model_card(str(network), network, "user/faces")
    assert "| fid5k_full | 12.35 | 5,000 | 300 |" in card and "20" not in card.split("| metric |")[1]
    assert "| kid5k_full | not finite |" in card
    assert "16x16 px, RGB" in card and "3 classes" in card
    assert "generate.py --network=hf://user/faces/net.pkl" in card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hub=user/repo", "--seeds=0", "--outdir=o"], "add --export=FILE"),
        (["--hub=repo", "--export=x.pkl"], "--hub=repo: write it as user/repository"),
        (["--hub=user/repo", "--export=x.pkl"], "--hub=user/repo: Hugging Face needs one more package: pip install"),
    ],
)
def test_pushing_names_what_is_missing_first(snapshot, tmp_path, monkeypatch, arguments, message) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    assert message in run(f"--network={snapshot}", *arguments, ok=False)
    assert not (tmp_path / "x.pkl").exists()


def test_hub_gives_back_what_was_pushed(server: FileServer, snapshot: Path, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    environment = os.environ | {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_x"}

    def run_process(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "generate.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)

    done = run_process(f"--network={snapshot}", f"--export={tmp_path / 'ours.pkl'}", "--hub=user/repo")
    assert done.returncode == 0 and "Pushed: " in done.stdout, done.stderr
    assert server.committed["ours.pkl"] == (tmp_path / "ours.pkl").read_bytes()
    assert b"hf://user/repo/ours.pkl" in server.committed["README.md"]
    server.files["/user/repo/resolve/main/ours.pkl"] = server.committed["ours.pkl"]
    done = run_process("--network=hf://user/repo/ours.pkl", "--seeds=0", "--outdir=hub")
    assert done.returncode == 0, done.stderr
    run(f"--network={snapshot}", "--seeds=0", f"--outdir={tmp_path / 'here'}")
    assert (tmp_path / "hub" / "seed0000.png").read_bytes() == (tmp_path / "here" / "seed0000.png").read_bytes()
    done = run_process("--network=hf://user/repo/gone.pkl", "--seeds=0", "--outdir=hub")
    assert done.returncode == 1 and "hf://user/repo/gone.pkl: the download failed" in done.stderr
    assert "Traceback" not in done.stderr
