"""The GPU report: its time is shared out rightly, its parts cannot harm each other, and a killed one leaves what it had."""

import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks.gpu_report import facts, results
from benchmarks.gpu_report.budget import MARGIN_SEC, Budget, Need
from benchmarks.gpu_report.chart import COLOURS, Panel, draw_chart, span, ticks
from benchmarks.gpu_report.child import GRACE_SEC, Outcome, run
from benchmarks.gpu_report.page import page, summary, table
from benchmarks.gpu_report.parts import Part, Parts, Settings, planned_kimg
from benchmarks.gpu_report.record import FILES, Entry, Record, readable_lines, settle
from benchmarks.gpu_report.session import Session
from benchmarks.gpu_report.side_by_side import WARM_UP_STEPS, steady_sec
from benchmarks.modes import parse_mode
from torch_utils.doctor.torch_facts import Gpu, TorchFacts

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "benchmarks.gpu_report", "--device=cpu", "--quick"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
main = importlib.import_module("benchmarks.gpu_report.__main__")


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.sec = 100.0

    def __call__(self) -> float:
        return self.sec


def settings_for(outdir: Path, **changes: Any) -> Settings:
    whole = Settings(outdir, data=None, cfg="cifar", device="cuda", half="bf16", is_quick=False, seed=0)
    return replace(whole, **changes)


def gpu_parts(tmp_path: Path, **changes: Any) -> list[Part]:
    return Parts(settings_for(tmp_path, **changes), tmp_path).all()


def test_time_that_later_parts_need_is_kept_for_them() -> None:
    clock = Clock()
    budget = Budget(10, grace_sec=12, clock=clock)
    left = 600 - MARGIN_SEC - 12
    assert budget.limit_sec(Need(10, 1000), []) == left
    assert budget.limit_sec(Need(10, 1000), [Need(100, 200), Need(50, 60)]) == left - 150
    assert budget.limit_sec(Need(10, 40), [Need(100, 200)]) == 40
    clock.sec += left - 30  # too little for both: the first comes first
    assert budget.limit_sec(Need(20, 40), [Need(100, 200)]) == 20
    assert budget.limit_sec(Need(31, 40), []) == 0
    assert budget.used_sec == left - 30


def test_times_follow_the_length_of_the_report() -> None:
    budget = Budget(5, grace_sec=12, clock=Clock())
    assert budget.limit_sec(Need(10, 40), []) == 20
    assert budget.limit_sec(Need(10, 4000), [Need(100, 100)]) == 300 - MARGIN_SEC - 12 - 50


@pytest.mark.parametrize("taken", [0.0, 0.3, 1.0])
def test_the_whole_plan_ends_in_time_and_reaches_every_part(taken: float, tmp_path: Path) -> None:
    """Whatever share of its limit each part takes."""
    clock = Clock()
    budget = Budget(10, GRACE_SEC, clock)
    needs = [part.need for part in gpu_parts(tmp_path)]
    for index, need in enumerate(needs):
        limit = budget.limit_sec(need, needs[index + 1 :])
        assert limit >= need.least
        clock.sec += limit * taken
    assert budget.used_sec + GRACE_SEC <= 600


def test_a_report_whose_parts_all_hang_ends_in_time(tmp_path: Path) -> None:
    clock = Clock()
    budget = Budget(10, GRACE_SEC, clock)
    needs = [part.need for part in gpu_parts(tmp_path)]
    limits = []
    for index, need in enumerate(needs):
        limits.append(budget.limit_sec(need, needs[index + 1 :]))
        clock.sec += limits[-1] + GRACE_SEC if limits[-1] else 0.0
    assert budget.used_sec <= 600
    assert all(limits[:11])  # modes and steps have had their turn even then


def test_what_tells_most_comes_before_long_tests(tmp_path: Path) -> None:
    names = [part.name for part in gpu_parts(tmp_path)]
    assert names == [
        "doctor", "native", "digits", "mode:fp32", "mode:bf16", "mode:bf16+compile", "mode:tf32",
        "mode:bf16+compile+graphs", "mode:bf16+compile+native", "steps:32", "steps:256", "tests", "training", "proxies",
    ]  # fmt: skip


def test_modes_are_those_of_the_gpu(tmp_path: Path) -> None:
    def modes(**changes: Any) -> dict[str, tuple[str, str]]:
        found = {}
        for part in gpu_parts(tmp_path, **changes):
            if part.name.startswith("mode:"):
                words = dict(word.split("=", 1) for word in part.command(60.0) if "=" in word)
                found[part.name[5:]] = (parse_mode(words["--mode"]).name, words["--ops"])
                assert words["--steps"] == "200" and words["--cfg"] == "cifar" and words["--seed"] == "0"
        return found

    assert modes() == {
        "fp32": ("fp32", "reference"),
        "tf32": ("tf32", "reference"),
        "bf16": ("bf16", "reference"),
        "bf16+compile": ("bf16+compile", "reference"),
        "bf16+compile+graphs": ("bf16+graphs", "reference"),
        "bf16+compile+native": ("bf16+compile", "native"),
    }
    assert set(modes(half="fp16")) == {
        "fp32", "fp16", "fp16+compile", "fp16+compile+graphs", "fp16+compile+native",
    }  # fmt: skip


def test_what_needs_a_gpu_or_pytest_is_skipped_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = {part.name: part.why_skip for part in gpu_parts(tmp_path, device="cpu", is_quick=True)}
    assert on_cpu["native"] == on_cpu["tests"] == "needs a GPU"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    without = {part.name: part.why_skip for part in gpu_parts(tmp_path)}
    assert "pip install pytest" in without["tests"] and not without["native"]


def test_training_is_planned_by_the_speed_of_its_own_mode(tmp_path: Path) -> None:
    parts = Parts(settings_for(tmp_path), tmp_path)
    parts.modes = {
        "fp32": {"images_per_sec": 100.0, "start_up_sec": 1.0},
        "bf16+compile": {"images_per_sec": 1000.0, "start_up_sec": 80.0},
    }
    (training,) = [part for part in parts.all() if part.name == "training"]
    words = dict(word.split("=", 1) for word in training.command(200.0) if "=" in word)
    assert float(words["--kimg"]) == pytest.approx(planned_kimg(200, *parts.speed())) == pytest.approx(98.4)
    assert float(words["--tick"]) * 24 == pytest.approx(98.4) and words["--stop-after"] == "188s"
    parts.modes.clear()
    guessed = dict(word.split("=", 1) for word in training.command(200.0) if "=" in word)
    assert 10 < float(guessed["--kimg"]) < 98


def test_time_per_step_leaves_out_the_warm_up() -> None:
    rows: list[dict[str, float | None]] = [{"step": 1, "sec": 60.0}, {"step": WARM_UP_STEPS, "sec": 62.0}]
    assert steady_sec(rows) == (None, None)
    rows.append({"step": WARM_UP_STEPS + 20, "sec": 72.0})
    assert steady_sec(rows) == (0.5, 62.0 - WARM_UP_STEPS * 0.5)


def child(code: str, limit_sec: float, log: Path) -> Outcome:
    return run([sys.executable, "-c", code], limit_sec, log, ENVIRONMENT)


def test_output_and_exit_code_of_a_child(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    outcome = child("import sys; print('out', flush=True); sys.exit('err')", 60, log)
    assert (outcome.exit_code, outcome.output) == (1, "out\nerr\n")
    assert log.read_text() == "before\nout\nerr\n"


def test_a_child_that_takes_too_long_may_tidy_up(tmp_path: Path) -> None:
    code = "import time\ntry: print('begun', flush=True); time.sleep(100)\nexcept KeyboardInterrupt: print('tidy')"
    outcome = child(code, 2, tmp_path / "log")
    assert outcome.exit_code is None and outcome.seconds < 10
    assert outcome.output == "begun\ntidy\n"


def test_a_child_that_hangs_is_killed_with_all_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu_report.child.GRACE_SEC", 0.5)
    code = (
        "import signal, subprocess, sys, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import signal, time; time.sleep(100)']).pid, flush=True)\n"
        "time.sleep(100)"
    )
    outcome = child(code, 2, tmp_path / "log")
    assert outcome.exit_code is None and outcome.seconds < 30
    assert has_ended(int(outcome.output))


def has_ended(pid: int) -> bool:
    """Whether a process is gone within seconds, or is a zombie that nobody has looked at yet."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def parts_of_commands(**commands: str) -> list[Part]:
    """Parts that run a line of Python."""

    def part(name: str, code: str) -> Part:
        return Part(name, name.title(), Need(1, 60), lambda limit_sec: [sys.executable, "-c", code], lambda outcome: {})

    return [part(name, code) for name, code in commands.items()]


def session(folder: Path, parts: list[Part], minutes: float = 10.0) -> Session:
    record = Record(folder, {"device": "none"}, minutes, [Entry(part.name, part.title) for part in parts])
    return Session(record, Budget(minutes, GRACE_SEC), folder / "work", ENVIRONMENT)


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_a_part_that_fails_or_cannot_be_read_harms_no_other(tmp_path: Path) -> None:
    parts = parts_of_commands(
        good="print('fine')", crash="import os; os.abort()", odd="pass", last=f"print({str(tmp_path / 'work')!r})"
    )

    def unreadable(outcome: Outcome) -> dict[str, Any]:
        raise KeyError("rows")

    parts[2] = replace(parts[2], collect=unreadable)
    session(tmp_path, parts).run(parts)
    report = read(tmp_path)
    assert [part["status"] for part in report["parts"]] == ["done", "failed", "done", "done"]
    assert report["parts"][1]["exit_code"] == -signal.SIGABRT
    assert "rows" in report["parts"][2]["note"]
    assert report["parts"][3]["output"] == ["WORK"]
    assert "fine" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_the_report_is_written_before_and_after_each_part(tmp_path: Path) -> None:
    """What a part finds there is what a killed report leaves."""
    code = f"import json; r = json.load(open({str(tmp_path / 'report.json')!r})); "
    code += "print([p['status'] for p in r['parts']], r['status'])"
    parts = parts_of_commands(first="print(1)", second=code, third="pass")
    session(tmp_path, parts).run(parts)
    seen = read(tmp_path)["parts"][1]["output"]
    assert seen == ["['done', 'running', 'waiting'] still running, or interrupted"]


def test_parts_for_which_no_time_is_left_are_skipped(tmp_path: Path) -> None:
    parts = [replace(part, need=Need(20, 60)) for part in parts_of_commands(first="pass", second="pass")]
    started = session(tmp_path, parts, minutes=1)
    started.budget.end_sec = started.budget.start_sec + GRACE_SEC + 1.9
    started.run(parts)
    assert [(part["status"], part["note"]) for part in read(tmp_path)["parts"]] == [("skipped", "no time left")] * 2


def whole_record() -> dict[str, Any]:
    """A report of everything, in plain values."""

    def part(name: str, values: dict[str, Any], status: str = "done") -> dict[str, Any]:
        return {
            "name": name, "title": name, "status": status, "note": "", "command": "python x", "seconds": 1.0,
            "limit_sec": 2.0, "exit_code": 0, "values": values, "output": ["line | of output"],
        }  # fmt: skip

    losses = [{"step": step, "G": step / 100, "D": 2.0, "r1": None, "sec": 1.0} for step in (1, 50, 80, 100)]
    mode = {"rows": losses, "images_per_sec": 1234.5, "start_up_sec": 60.0, "peak_mb": 1e4, "nonfinite_steps": 0}
    row = {
        "preset": "cifar", "phase": "iteration", "mode": "bf16", "device": "H200", "batch": 32, "images_per_sec": 2000.0,
        "sec_per_kimg": 0.5, "peak_mem_mb": None, "ratio_to_baseline": 8.0,
    }  # fmt: skip
    wait = {"batch": "32", "mode": "bf16", "phase": "iteration", "where": "none"}
    return {
        "status": "done", "minutes": 10, "seconds": 321.0, "facts": {"device": "H200"}, "files": ["grid.png"],
        "parts": [
            part("mode:bf16", mode), part("steps:32", {"table": [row], "waits": [wait]}),
            part("training", {"kimg": 100.0, "summary": "s"}), part("tests", {}, "out of time"),
        ],
    }  # fmt: skip


def test_the_page_has_all_tables_and_the_images_that_are_there() -> None:
    text = page(whole_record())
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert [
        "bf16",
        "100",
        "1234.5",
        "60.0",
        "10000.0",
        "",
        "0.01000",
        "2.00000",
        "",
        "0.90000",
        "2.00000",
        "0",
    ] in cells
    assert ["32", "iteration", "bf16", "2000.0", "0.5", "", "8.00"] in cells
    assert ["32", "bf16", "iteration", "none"] in cells
    assert ["tests", "out of time", "1", ""] in cells
    assert "(grid.png)" in text and "(losses.png)" not in text and "not complete" not in text
    assert "not complete: half" in page({**whole_record(), "status": "half"})
    assert set(summary(whole_record())) <= set(text.splitlines())


def test_tables_line_up_and_escape_bars() -> None:
    lines = table(("a", "long header"), [("x|y", 1.23456), (None, 12345.678)])
    assert lines[2] == "| x\\|y | 1.23        |" and len({len(line) for line in lines}) == 1


def test_progress_bars_leave_their_last_state() -> None:
    assert readable_lines("a\r10%\r20%\nb  \n\n") == ["20%", "b"]


def test_a_failure_is_noted_with_its_last_line() -> None:
    entry = Entry("x", "X")
    settle(entry, Outcome(3, 1.25, "\n".join(f"line {i}" for i in range(9)) + "\nError: no memory\n"), {}, max_lines=4)
    assert (entry.status, entry.note) == ("failed", "exit code 3: Error: no memory")
    assert entry.output == ["line 6", "line 7", "line 8", "Error: no memory"]
    settle(entry, Outcome(None, 1.0, ""), {"summary": "half"}, 4)
    assert (entry.status, entry.note) == ("out of time", "half")


def test_places_of_waiting_are_read_from_what_train_step_prints() -> None:
    output = """
The ten largest kernels of an iteration: cifar, batch 32, fp32
     1.000 ms  50.0%      3 x  gemm
Host synchronisation in iteration: none
Host synchronisation in d_r1: training/phases.py:10 (x.item()): called a synchronizing CUDA operation

The ten largest kernels of an iteration: cifar, batch 32, bf16+graphs
Host synchronisation in iteration: none
"""
    found = [(wait["mode"], wait["phase"], wait["where"][:20]) for wait in results.waits(output)]
    assert found == [
        ("fp32", "iteration", "none"), ("fp32", "d_r1", "training/phases.py:1"), ("bf16+graphs", "iteration", "none"),
    ]  # fmt: skip


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    assert results.read_mode(tmp_path / "none.json") == {}
    assert results.read_steps(tmp_path / "none.json", "") == {"table": [], "waits": []}
    assert results.read_training(results.run_folder(tmp_path / "runs")) == ({}, [])
    assert results.read_proxies(tmp_path) == {}
    assert not draw_chart(tmp_path / "x.png", [Panel("empty", "steps", {"a": []})])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("low", "high"), [(0.0, 200.0), (-3.2, 0.07), (1e-6, 3e-6), (499.0, 501.0)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 6 and low - 1e-9 <= found[0] and found[-1] <= high + 1e-9
    assert np.allclose(np.diff(found), found[1] - found[0])
    assert span([3.0, 3.0])[0] < 3.0 < span([3.0, 3.0])[1]


def test_a_curve_goes_where_its_values_are(tmp_path: Path) -> None:
    """A falling line: its colour lies high on the left, low on the right, and not the other way round."""
    draw_chart(
        tmp_path / "a.png", [Panel("A", "steps", {"loss": [(0, 1.0), (100, 0.0)]}), Panel("B", "x", {"p": [(1, 1)]})]
    )
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (1280, 400)
        pixels = np.asarray(image)[:, :640].astype(int)
    colour = [int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)]
    is_line = np.abs(pixels - colour).sum(axis=2) < 100
    is_line[:, 560:] = False  # the name in the legend
    rows = [np.flatnonzero(is_line[:, column]).mean() for column in (80, 300, 500)]
    assert rows[0] < 70 < rows[1] < 250 < rows[2]


def test_preset_by_the_size_of_the_images(tmp_path: Path, tiny_data: Path) -> None:
    assert main.suitable_preset(None) == "cifar"
    assert main.suitable_preset(tiny_data) == "auto"
    (tmp_path / "small").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "small" / "a.png")
    assert main.suitable_preset(tmp_path / "small") == "cifar"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--parts=steps:4,fits"], "--parts=fits"),
        (["--data=missing.zip"], "missing.zip"),
        (["--data=missing.zip", "--cfg=auto", "--quick"], "missing.zip"),
        (["--device=cuda"], "--device=cpu --quick"),
        (["--minutes=0"], "--minutes"),
    ],
)
def test_wrong_options_are_named(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts.torch_facts, "ask", lambda: TorchFacts(version="2.11.0"))
    result = CliRunner().invoke(main.main, ["--device=cpu", f"--outdir={tmp_path / 'o'}", *options])
    assert result.exit_code in (1, 2) and message in result.output
    assert not (tmp_path / "o").exists()


def test_facts_of_a_gpu() -> None:
    seen = TorchFacts(version="2.11.0", cuda="13.0", gpus=(Gpu("NVIDIA H200", 140 * 2**30, 0, (9, 0)),))
    found = facts.gather("cuda", seen, "python -m benchmarks.gpu_report")
    assert found["device"] == "NVIDIA H200 (140 GiB)" and found["torch"] == "2.11.0" and found["CUDA"] == "13.0"
    assert {"date", "command", "commit", "driver", "Python"} <= found.keys()


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """The command changes what SIGTERM does."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_the_whole_report_on_the_cpu(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "grid.png").write_text("of an older report")
    done = subprocess.run([*COMMAND, f"--outdir={folder}"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in folder.iterdir()} == set(FILES) and len(FILES) <= 8
    report = read(folder)
    assert report["status"] == "done" and report["seconds"] < 600
    statuses = {part["name"]: part["status"] for part in report["parts"]}
    assert {name for name, status in statuses.items() if status != "done"} == {"native", "tests"}
    values = {part["name"]: part["values"] for part in report["parts"]}
    for mode in ("fp32", "bf16"):
        rows = values[f"mode:{mode}"]["rows"]
        assert [row["step"] for row in rows] == [1, 5, 10, 15, 20]
        assert values[f"mode:{mode}"]["images_per_sec"] > 0 and values[f"mode:{mode}"]["nonfinite_steps"] == 0
    first = [values[f"mode:{mode}"]["rows"][0] for mode in ("fp32", "bf16")]
    for name in ("G", "D", "r1"):  # the same weights, images and latents, in other numbers
        assert first[0][name] == pytest.approx(first[1][name], rel=0.1)
    assert first[0] != first[1]
    assert {row["phase"] for row in values["steps:2"]["table"]} >= {"g_main", "d_main", "d_r1", "iteration", "generate"}
    assert values["training"]["kimg"] == pytest.approx(0.2) and values["proxies"]["proxy_fd_randconv_v1"]
    for name in ("grid.png", "reals.png", "losses.png", "training.png"):
        with Image.open(folder / name) as image:
            assert min(image.size) > 100
    assert "The ten largest operators" in (folder / "report.md").read_text(encoding="utf-8")
    table_line = next(
        line for line in done.stdout.splitlines() if line.startswith("| iteration") or "| iteration |" in line
    )
    assert table_line in (folder / "report.md").read_text(encoding="utf-8")
    assert shlex.join(["--device=cpu", "--quick"]) in report["facts"]["command"]


@pytest.mark.slow
def test_a_killed_report_leaves_the_parts_that_were_done(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    process = subprocess.Popen(
        [*COMMAND, f"--outdir={folder}"],
        cwd=ROOT,
        env={**ENVIRONMENT, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: (folder / "report.json").exists() and status_of(folder, "mode:bf16") == "running", process)
        time.sleep(1.0)  # its process has begun
        (running,) = children(process.pid)
    finally:
        process.kill()
        process.wait()
    assert has_ended(running)  # nothing goes on where nobody looks
    report = read(folder)
    assert report["status"] != "done"
    statuses = {part["name"]: part["status"] for part in report["parts"]}
    assert statuses["doctor"] == statuses["mode:fp32"] == "done" and statuses["mode:bf16"] == "running"
    assert statuses["training"] == "waiting"
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "not complete" in text and "## Modes side by side" in text and "(losses.png)" in text
    with Image.open(folder / "losses.png") as image:
        image.load()


def status_of(folder: Path, name: str) -> str:
    return next(part["status"] for part in read(folder)["parts"] if part["name"] == name)


def wait_for(condition: Any, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
