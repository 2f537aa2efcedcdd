"""The GPU report: it ends in time, no part disturbs another, and a killed report keeps its finished parts."""

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

import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks.gpu_report import facts
from benchmarks.gpu_report.budget import Budget, Need
from benchmarks.gpu_report.child import GRACE_SEC, Outcome, run
from benchmarks.gpu_report.parts import Part, Parts, Settings
from benchmarks.gpu_report.report import FILES, Report
from torch_utils.doctor.torch_facts import TorchFacts

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "benchmarks.gpu_report", "--device=cpu", "--quick"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
main = importlib.import_module("benchmarks.gpu_report.__main__")


@pytest.mark.parametrize("taken", [0.0, 0.3, 1.0, None])
def test_the_whole_plan_ends_in_time(taken: float | None, tmp_path: Path) -> None:
    """Whatever share of its limit each part takes; None: each hangs until it is killed."""
    now = [100.0]
    budget = Budget(10, GRACE_SEC, lambda: now[0])
    settings = Settings(tmp_path, data=None, cfg="cifar", device="cuda", half="bf16", is_quick=False, seed=0)
    needs, limits = [part.need for part in Parts(settings, tmp_path).all()], []
    for index, need in enumerate(needs):
        limits.append(budget.limit_sec(need, needs[index + 1 :]))
        now[0] += limits[-1] * taken if taken is not None else limits[-1] + GRACE_SEC * (limits[-1] > 0)
    assert budget.used_sec + GRACE_SEC * (taken is not None) <= 600
    assert all(limits[:11] if taken is None else limits)  # modes and steps are measured even if all parts hang


def test_a_child_that_hangs_is_killed_with_all_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu_report.child.GRACE_SEC", 0.5)
    code = (
        "import signal, subprocess, sys, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import signal, time; time.sleep(100)']).pid, flush=True)\n"
        "time.sleep(100)"
    )
    outcome = run([sys.executable, "-c", code], 2, tmp_path / "log", ENVIRONMENT)
    assert outcome.exit_code is None and outcome.seconds < 30
    assert has_ended(int(outcome.output))


def has_ended(pid: int) -> bool:
    """Return whether a process ends within seconds; a zombie has ended."""
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


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_a_part_that_fails_or_cannot_be_read_harms_no_other(tmp_path: Path) -> None:
    parts = parts_of_commands(
        good="print('fine')", crash="import os; os.abort()", odd="pass", last=f"print({str(tmp_path / 'work')!r})"
    )

    def unreadable(outcome: Outcome) -> dict[str, Any]:
        raise KeyError("rows")

    parts[2] = replace(parts[2], collect=unreadable)
    Report(tmp_path, {"device": "none"}, Budget(10, GRACE_SEC), parts, tmp_path / "work", ENVIRONMENT).run()
    report = read(tmp_path)
    assert [part["status"] for part in report["parts"]] == ["done", "failed", "done", "done"]
    assert report["parts"][1]["exit_code"] == -signal.SIGABRT
    assert "rows" in report["parts"][2]["note"]
    assert report["parts"][3]["output"] == ["WORK"]
    assert "fine" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--parts=steps:4,fits"], "--parts=fits"),
        (["--data=missing.zip"], "missing.zip"),
        (["--device=cuda"], "--device=cpu --quick"),
        (["--minutes=0"], "--minutes"),
    ],
)
def test_wrong_options_are_named(options, message, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(facts.torch_facts, "ask", lambda: TorchFacts(version="2.11.0"))
    result = CliRunner().invoke(main.main, ["--device=cpu", f"--outdir={tmp_path / 'o'}", *options])
    assert result.exit_code in (1, 2) and message in result.output
    assert not (tmp_path / "o").exists()


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
    assert shlex.join(["--device=cpu", "--quick"]) in report["facts"]["command"]


@pytest.mark.slow
def test_a_killed_report_leaves_the_parts_that_were_done(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    environment = {**ENVIRONMENT, "TMPDIR": str(tmp_path)}
    command = [*COMMAND, f"--outdir={folder}"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: (folder / "report.json").exists() and status_of(folder, "mode:bf16") == "running", process)
        time.sleep(1.0)  # its process has begun
        (running,) = children(process.pid)
    finally:
        process.kill()
        process.wait()
    assert has_ended(running)  # no process is left running
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
