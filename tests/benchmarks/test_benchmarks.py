"""Every benchmark runs on tiny settings and writes its rows; no times are asserted."""

import json
import math
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from tiny_runs import CPU, train

from benchmarks import loader, precision, resolution, sampling, train_step
from benchmarks.train_step import where_it_waits
from training.config import RunConfig

ROOT = Path(__file__).parents[2]
FIELDS = {
    "preset", "phase", "mode", "device", "batch", "images_per_sec", "peak_mem_mb", "saved_mb_per_image",
    "ratio_to_baseline",
}  # fmt: skip
PHASES = ["g_forward", "g_main", "d_main", "d_r1", "iteration", "generate"]


def rows_of(command: click.Command, path: Path, *options: str) -> list[dict]:
    """What a quick run of a script writes; checks what holds for all of them."""
    result = CliRunner().invoke(command, ["--quick", "--device=cpu", f"--json={path}", *options])
    assert result.exit_code == 0, result.output
    rows = json.loads(path.read_text())["rows"]
    for row in rows:
        assert row.keys() >= FIELDS
        assert row["images_per_sec"] > 0 and math.isfinite(row["images_per_sec"])
        assert row["ratio_to_baseline"] == pytest.approx(1) or row["mode"] != "baseline"
        assert row["device"] == "cpu"
        assert row["phase"] in result.output and row["mode"] in result.output
    return rows


def test_train_step(tmp_path: Path) -> None:
    rows = rows_of(train_step.main, tmp_path / "new" / "rows.json", "--modes=fp32")
    found = [(row["phase"], row["mode"]) for row in rows]
    assert found == [(phase, mode) for phase in PHASES for mode in ("baseline", "fp32")]
    by_key = {(row["phase"], row["mode"]): row for row in rows}
    for row in rows:
        assert row["peak_mem_mb"] > 0 and row["matrix_rate_share"] > 0
        assert row["sec_per_kimg"] == pytest.approx(1000 / row["images_per_sec"])
    assert by_key["g_main", "fp32"]["saved_mb_per_image"] < by_key["g_main", "baseline"]["saved_mb_per_image"]
    assert by_key["generate", "fp32"]["saved_mb_per_image"] == 0


def test_resolution() -> None:
    result = CliRunner().invoke(resolution.main, ["--hybrid=64", "--linformer=16", "--rounds=1"])
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["hybrid", "64"], ["linformer", "16"]]
    for _, px, sec, us_per_pixel, *stored in rows:
        assert float(us_per_pixel) == pytest.approx(1e6 * float(sec) / int(px) ** 2, rel=0.1)
        assert all(float(value) > 0 for value in stored)


def test_loader_reads_the_same_images_in_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", str(tmp_path))
    loader.write_images(tmp_path / "set.zip", 16, 10)
    streams = [loader.published(tmp_path / "set.zip", 4, 0, CPU)]
    streams += [loader.ours(tmp_path / "set.zip", 4, cache, 0, CPU) for cache in ("none", "ram")]
    for _ in range(6):
        images = [next(stream)[0] for stream in streams]
        assert images[0].shape == (4, 3, 16, 16)
        assert torch.equal(images[0], images[1]) and torch.equal(images[0], images[2])


def test_sampling(tmp_path: Path) -> None:
    rows = rows_of(sampling.main, tmp_path / "rows.json", "--modes=fp32,bf16")
    assert [(row["phase"], row["mode"]) for row in rows] == [
        *(("generate", mode) for mode in ("baseline", "fp32", "bf16")),
        *(("png", mode) for mode in ("baseline", "threads")),
        *(("generate+png", mode) for mode in ("baseline", "generate.py")),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("train_step", ["--preset=demo", "--batch=2", "--rounds=1", "--modes=fp32", "--device=cpu"]),
        ("train_step", ["--quick", "--modes=fp32,bf16", "--malloc", "--profile", "--device=cpu"]),
        ("attention", ["--quick", "--modes=fp32", "--device=cpu"]),
        ("loader", ["--quick", "--workers=0", "--cache=none,ram,gpu", "--device=cpu"]),
        ("ops", ["--dtypes=float32", "--modes=reference", "--device=cpu"]),
    ],
)
def test_scripts_by_themselves(name: str, options: list[str], tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *options, f"--json={path}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = json.loads(path.read_text())
    assert written["rows"]
    if "--malloc" in options:
        assert [row["phase"] for row in written["rows_malloc_raised"]] == [row["phase"] for row in written["rows"]]
        assert "MALLOC_MMAP_THRESHOLD_=" in done.stdout


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--presets=cifar,cfar", "--presets=cfar"),
        ("--modes=bf16+compil", "+compile, +graphs"),
        ("--device=tpu", "tpu"),
    ],
)
def test_wrong_options_are_named(option: str, message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(train_step.main, ["--quick", f"--json={tmp_path / 'rows.json'}", option])
    assert result.exit_code == 1 and message in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
def test_waiting_for_the_gpu_is_found() -> None:
    x = torch.ones(4, device="cuda")
    assert where_it_waits(lambda: x * 2) is None
    place = where_it_waits(lambda: x.sum().item())
    assert place is not None and "test_benchmarks.py" in place


def test_precision(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    """Errors of the gradients: those of regularisers are float32's in every mode, the others grow with what is rounded."""
    run = train(tiny_config, tiny_data, tmp_path / "run", 0.008)
    options = [f"--snapshot={run.output.snapshot_path(8)}", f"--data={tiny_data}", "--batch=8", "--batches=1"]
    result = CliRunner().invoke(precision.main, [*options, "--device=cpu"])
    assert result.exit_code == 0, result.output
    names, _, *lines = [[word.strip() for word in line.split("|")[1:-1]] for line in result.output.splitlines()]
    found = {line[0]: dict(zip(names[1:], map(float, line[1:]), strict=True)) for line in lines}
    assert list(found) == ["fp32", "bf16", "fp16"] and names[1:] == ["G_main", "G_pl", "D_main", "D_r1"]
    assert all(0 < error < 1e-4 for error in found["fp32"].values())
    for phase in ("G_main", "D_main"):
        assert found["fp32"][phase] < found["fp16"][phase] < found["bf16"][phase] < 0.2
    for phase in ("G_pl", "D_r1"):
        assert found["bf16"][phase] == found["fp16"][phase] == found["fp32"][phase]
