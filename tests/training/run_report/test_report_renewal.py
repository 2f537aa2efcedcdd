"""Reports of real, tiny runs."""

import json
import os
from pathlib import Path

import torch
from tiny_runs import train_script

from training.run.names import FACTS_FILE, REPORT_FILE


def run(data: Path, outdir: Path, *options: str) -> tuple[Path, tuple[str, str], str]:
    """Train; return the run folder, status and reason in its facts, and the output."""
    result = train_script(data, outdir, "--cond=0", "--cache=none", *options)
    (run_dir,) = outdir.iterdir()
    facts = json.loads((run_dir / FACTS_FILE).read_text(encoding="utf-8"))
    return run_dir, (facts["status"], facts["reason"]), result.output


def test_report_of_a_run_that_is_stopped_and_resumed(tiny_data: Path, tmp_path: Path) -> None:
    _, status, output = run(tiny_data, tmp_path, "--stop-after=1s", "--kimg=1000")
    assert status == ("stopped", "the time of --stop-after is over"), output
    run_dir, status, output = run(tiny_data, tmp_path, "--resume=latest")
    assert status == ("done", ""), output
    page = (run_dir / REPORT_FILE).read_text(encoding="utf-8")
    for text in ("Done", "16 x 16 px", "parameters", torch.__version__, "--resume=latest"):
        assert text in page
    os.remove(run_dir / REPORT_FILE)
    (run_dir / REPORT_FILE).mkdir()  # in the way
    _, _, output = run(tiny_data, tmp_path, "--resume=latest")
    assert f"Warning: {REPORT_FILE} was not" in output and "Done." in output


def test_report_of_a_run_that_failed(tiny_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data" / "00000"
    data.mkdir(parents=True)
    for path in sorted((tiny_data / "00000").iterdir()):
        content = path.read_bytes()
        (data / path.name).write_bytes(content[:50] + bytes(len(content) - 50))
    _, status, output = run(data.parent, tmp_path / "runs")
    assert status[0] == "failed" and "images are broken" in status[1], output
