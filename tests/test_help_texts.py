"""docs/*-help.txt are what the scripts print; `python tests/test_help_texts.py` writes them anew."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ["train", "generate", "calc_metrics", "dataset_tool"]
COMMANDS = ["mix", "truncation", "classes", "interpolate", "attention", "directions", "project", "nearest", "explore"]


def _help(script: str) -> str:
    """What the script and each of its commands print."""
    texts = []
    for name in ["", *COMMANDS] if script == "generate" else [""]:
        command = [sys.executable, f"{script}.py", *name.split(), "--help"]
        environment = os.environ | {"COLUMNS": "110", "PYTHONIOENCODING": "utf-8"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
        texts.append(done.stdout.decode().replace("\r\n", "\n"))
    return "\n\n".join(texts)


def _file(script: str) -> Path:
    return ROOT / "docs" / f"{script}-help.txt"


def test_no_command_is_forgotten() -> None:
    listed = _file("generate").read_text(encoding="utf-8").split("Commands:")[1].split("\n\n")[0]
    assert {line.split()[0] for line in listed.strip().splitlines()} == set(COMMANDS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_text_is_up_to_date(script: str) -> None:
    recorded = _file(script).read_text(encoding="utf-8") if _file(script).exists() else ""
    assert _help(script) == recorded, f"{_file(script)} is out of date; renew it with: python tests/test_help_texts.py"


if __name__ == "__main__":
    for name in SCRIPTS:
        _file(name).write_text(_help(name), encoding="utf-8")
