"""The ways to install agree with each other."""

import re
import tomllib
from pathlib import Path

import pytest

from torch_utils.doctor.checks import OLDER_CUDA, as_numbers, matching_torchvision, parse

ROOT = Path(__file__).parents[1]


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def pinned(path: str) -> dict[str, str]:
    return parse(read(path))


def test_every_package_is_pinned_in_the_tested_set() -> None:
    lines = [line for name in ("requirements.txt", "requirements-dev.txt") for line in read(name).splitlines()]
    pins = pinned("constraints.txt")
    assert {re.split(r"[<>=]", line)[0] for line in lines if not line.startswith("#")} == pins.keys()
    assert ">" not in read("constraints.txt")
    for name, least in parse(read("requirements.txt")).items():
        assert as_numbers(pins[name]) >= as_numbers(least), name


def test_the_newer_set_differs_in_pytorch_alone() -> None:
    tested, newest = pinned("constraints.txt"), pinned("constraints-newest.txt")
    assert tested.keys() == newest.keys()
    assert {name for name in tested if tested[name] != newest[name]} == {"torch", "torchvision"}
    assert as_numbers(newest["torch"]) > as_numbers(tested["torch"])
    assert newest["torchvision"].startswith(f"{matching_torchvision(newest['torch'])}.")


def test_the_build_for_an_older_cuda_is_the_tested_one() -> None:
    pins = pinned("constraints.txt")
    packages = f"torch=={pins['torch']} torchvision=={pins['torchvision']} "
    line = f"pip install --force-reinstall {packages}--index-url https://download.pytorch.org/whl/cu126"
    assert f"python -m {line}" == OLDER_CUDA
    assert f"`{line}`" in read("README.md")
    assert f"`{OLDER_CUDA}`" in read("docs/wsl.md")


def test_every_way_to_install_asks_for_the_same_python() -> None:
    project = tomllib.loads(read("pyproject.toml"))
    least = project["project"]["requires-python"].removeprefix(">=")
    assert project["tool"]["mypy"]["python_version"] == least
    assert project["tool"]["ruff"]["target-version"] == f"py{least.replace('.', '')}"
    assert f"sys.version_info < ({least.replace('.', ', ')})" in read("Makefile")
    assert f"{least} or newer" in read("README.md")
    conda = read("environment.yml")
    assert as_numbers(re.findall(r"(?m)^  - python=([0-9.]+)$", conda)[0]) >= as_numbers(least)
    assert "--requirement requirements.txt" in conda and "--constraint constraints.txt" in conda


def commands(page: str) -> list[str]:
    """What a page tells people to type: its indented lines and its code in a line, joined where they go on."""
    text = read(page).replace("\\\n", " ")
    indented = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return indented + re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("page", ["README.md", "docs/wsl.md"])
def test_commands_and_links_name_files_options_and_targets_that_exist(page: str) -> None:
    found = 0
    for command in commands(page):
        for script, rest in re.findall(r"(?:^|[\s/])(\w+)\.py\b((?: [^;&#]+)?)", command):
            assert (ROOT / f"{script}.py").exists() or (ROOT / "benchmarks" / f"{script}.py").exists(), command
            found += 1
            helps = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob(f"{script}*-help.txt"))
            options = set(re.findall(r"(?<=\s)--[a-z_][a-z_-]*", rest))
            assert options <= set(re.findall(r"--[a-z_][a-z_-]*", helps)), command
        for target in re.findall(r"^(?:\S+ && )*make ([a-z-]+)", command):
            assert re.search(rf"(?m)^{target}:", read("Makefile")), command
        for path in re.findall(r"(?:-r|-c|-f) (\S+\.(?:txt|yml))", command):
            assert (ROOT / path).exists(), command
        for module in re.findall(r"-m (torch_utils[\w.]*)", command):
            assert (ROOT / module.replace(".", "/") / "__main__.py").exists(), command
    assert found >= 4
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", read(page)):
        assert link.startswith("http") or (ROOT / page).parent.joinpath(link).exists(), link
