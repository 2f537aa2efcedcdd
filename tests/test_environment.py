"""The ways to install agree with each other."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def names(path: str) -> set[str]:
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    return {re.split(r"[<>=]", line)[0] for line in lines if line and not line.startswith("#")}


def test_every_package_is_pinned_in_the_tested_set() -> None:
    assert names("requirements.txt") | names("requirements-dev.txt") == names("constraints.txt")
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert all("==" in line for line in pins.splitlines() if not line.startswith("#"))


def test_conda_installs_the_same_files() -> None:
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert "--requirement requirements.txt" in text
    assert "--constraint constraints.txt" in text
    assert "python=3.12" in text
