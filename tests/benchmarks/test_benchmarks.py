"""Every benchmark runs on tiny settings and writes its rows; no times are asserted."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

from benchmarks import attention, loader, precision, sampling, train_step
from benchmarks.common import Settings, run_benchmark
from benchmarks.kernels import largest, where_it_waits
from benchmarks.modes import Mode, parse_mode
from benchmarks.rows import Row, read_rows, write_rows
from benchmarks.timing import interleaved, matrix_rate, peak_bytes, speed_up, warm_up
from training.config import RunConfig
from training.data.stream import ImageDataset
from training.run.training_run import TrainingRun
from training.supervisor import supervise

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
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


def test_an_iteration_is_its_steps_and_a_share_of_r1() -> None:
    """Its arithmetic for the cifar preset is 137 GFLOP per image; generator 17.5, discriminator 8.0 forward."""
    settings = train_step.Settings([], [2], [], CPU, 1, 0.0, True, False, None)
    comparison = train_step.Comparison("demo", 2, settings)
    for phase in ("d_r1", "iteration"):
        comparison.measure(phase)
    before = comparison.times["iteration"]["baseline"][0]
    comparison.add_r1()
    after = comparison.times["iteration"]["baseline"][0]
    assert after - before == pytest.approx(comparison.times["d_r1"]["baseline"][0] / comparison.config.loss.r1_interval)
    comparison.config, comparison.spec = train_step.config_of("cifar", 4), train_step.images_of("cifar")
    gflops = [comparison.flops(phase) / 1e9 for phase in ("g_forward", "iteration")]
    assert gflops == pytest.approx([17.5, 137], rel=0.02)


def test_attention(tmp_path: Path) -> None:
    rows = rows_of(attention.main, tmp_path / "rows.json", "--modes=fp32")
    assert {row["phase"] for row in rows} == {
        what + suffix for what in ("8x8x128", "16x16x64", "32x32x32 linformer") for suffix in ("", " +bwd")
    }
    stored = {(row["phase"], row["mode"]): row["saved_mb_per_image"] for row in rows if row["phase"].endswith("+bwd")}
    assert all(stored[phase, "fp32"] < stored[phase, "baseline"] for phase, _ in stored)


def test_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", str(tmp_path))  # the script sets its own
    rows = rows_of(loader.main, tmp_path / "rows.json", "--workers=0", "--cache=none,ram,gpu")
    assert [row["mode"] for row in rows] == ["baseline", "none, 0 workers", "ram, 0 workers"]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


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
        ("--batch=4,x", "--batch=x"),
        ("--modes=bf32", "--modes=bf32"),
        ("--modes=bf16+compil", "+compile, +graphs"),
        ("--device=tpu", "tpu"),
    ],
)
def test_wrong_options_are_named(option: str, message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(train_step.main, ["--quick", f"--json={tmp_path / 'rows.json'}", option])
    assert result.exit_code == 1 and message in result.output
    assert not list(tmp_path.iterdir())


def test_modes_by_name() -> None:
    for name in ("fp32", "tf32", "bf16+compile", "fp16+graphs"):
        assert parse_mode(name).name == name
    performance = parse_mode("bf16+graphs").performance
    assert (performance.precision, performance.compile, performance.cuda_graphs) == ("bf16", "1", True)


def test_rounds_are_interleaved_and_none_is_always_first() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in ("a", "b", "c")}
    times = interleaved(calls, CPU, rounds=2, least_sec=0.0)
    assert "".join(order) == "abc" + "cba"
    assert all(len(values) == 2 for values in times.values())


def test_speed_up_is_the_median_over_rounds() -> None:
    assert speed_up([4.0, 9.0, 30.0], [2.0, 3.0, 1.0]) == 3.0


def test_what_does_not_fit_is_left_out() -> None:
    def full() -> None:
        raise torch.OutOfMemoryError

    assert list(warm_up({"large": full, "small": lambda: None}, CPU)) == ["small"]


def test_peak_memory_of_tensors() -> None:
    kept: list[torch.Tensor] = []

    def call() -> None:
        a = torch.ones(1_000_000)
        kept.append(a + 1)  # both at once: 8 MB
        del a
        kept.append(torch.ones(250_000))  # 5 MB

    assert peak_bytes(call, CPU) == pytest.approx(8e6, rel=0.01)


def test_matrix_rate() -> None:
    assert 1e8 < matrix_rate(Mode("fp32"), CPU) < 1e15


def test_rows_come_back_from_json(tmp_path: Path) -> None:
    row = Row("demo", "load", "baseline", "cpu", 2, 10.0, None, None, None)
    write_rows(tmp_path / "rows.json", CPU, [row], [])
    assert read_rows(tmp_path / "rows.json") == [row]


def test_an_ended_benchmark_leaves_the_rows_it_had(tmp_path: Path) -> None:
    row = Row("demo", "load", "baseline", "cpu", 2, 10.0, None, None, None)
    path = tmp_path / "new" / "rows.json"

    def measure(settings: Settings) -> Iterator[Row]:
        yield row
        assert read_rows(path) == [row]  # while the next one is being measured
        raise ValueError("too large")

    options = {"device": "cpu", "quick": True, "presets": None, "batch": None, "malloc": False, "rounds": None}
    with pytest.raises(click.ClickException, match="too large"):
        run_benchmark({**options, "threads": None, "json_path": str(path)}, measure, ["demo"])
    assert read_rows(path) == [row]


def test_largest_operators() -> None:
    x = torch.randn(256, 256)
    names = [name for name, _, _, launches in largest(lambda: (x @ x).relu(), CPU) if launches >= 1]
    assert "aten::mm" in names and len(names) <= 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
def test_waiting_for_the_gpu_is_found() -> None:
    x = torch.ones(4, device="cuda")
    assert where_it_waits(lambda: x * 2) is None
    place = where_it_waits(lambda: x.sum().item())
    assert place is not None and "test_benchmarks.py" in place


def test_precision(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    """Errors of the gradients: those of regularisers are float32's in every mode, the others grow with what is rounded."""
    config = replace(tiny_config, schedule=replace(tiny_config.schedule, kimg=0.008))
    (tmp_path / "run").mkdir()
    loop = TrainingRun(config, ImageDataset(tiny_data), tmp_path / "run", CPU)
    supervise(loop)
    options = [f"--snapshot={loop.snapshot_path}", f"--data={tiny_data}", "--batch=8", "--batches=1", "--device=cpu"]
    result = CliRunner().invoke(precision.main, options)
    assert result.exit_code == 0, result.output
    names, _, *lines = [[word.strip() for word in line.split("|")[1:-1]] for line in result.output.splitlines()]
    found = {line[0]: dict(zip(names[1:], map(float, line[1:]), strict=True)) for line in lines}
    assert list(found) == ["fp32", "bf16", "fp16"] and names[1:] == ["G_main", "G_pl", "D_main", "D_r1"]
    assert all(0 < error < 1e-4 for error in found["fp32"].values())
    for phase in ("G_main", "D_main"):
        assert found["fp32"][phase] < found["fp16"][phase] < found["bf16"][phase] < 0.2
    for phase in ("G_pl", "D_r1"):
        assert found["bf16"][phase] == found["fp16"][phase] == found["fp32"][phase]
