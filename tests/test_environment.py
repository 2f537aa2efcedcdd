"""The ways to install agree with each other."""

import re
import tomllib
from pathlib import Path

import pytest

from torch_utils.doctor.checks import OLDER_CUDA, matching_torchvision

ROOT = Path(__file__).parents[1]


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def names(path: str) -> set[str]:
    lines = read(path).splitlines()
    return {re.split(r"[<>=]", line)[0] for line in lines if line and not line.startswith("#")}


def test_every_package_is_pinned_in_the_tested_set() -> None:
    assert names("requirements.txt") | names("requirements-dev.txt") == names("constraints.txt")
    pins = read("constraints.txt")
    assert all("==" in line for line in pins.splitlines() if not line.startswith("#"))


def pinned(path: str) -> dict[str, str]:
    return dict(line.split("==") for line in read(path).splitlines() if "==" in line)


def test_the_newer_set_differs_in_pytorch_alone() -> None:
    tested, newest = pinned("constraints.txt"), pinned("constraints-newest.txt")
    assert tested.keys() == newest.keys()
    assert {name for name in tested if tested[name] != newest[name]} == {"torch", "torchvision"}
    assert numbers(newest["torch"]) > numbers(tested["torch"])
    assert newest["torchvision"].startswith(f"{matching_torchvision(newest['torch'])}.")


def test_the_build_for_an_older_cuda_is_the_tested_one() -> None:
    pins = pinned("constraints.txt")
    packages = f"torch=={pins['torch']} torchvision=={pins['torchvision']} "
    line = f"pip install --force-reinstall {packages}--index-url https://download.pytorch.org/whl/cu126"
    assert f"python -m {line}" == OLDER_CUDA
    assert f"`{line}`" in read("README.md")
    assert f"`{OLDER_CUDA}`" in read("docs/wsl.md")


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def test_the_tested_set_is_one_that_requirements_allow() -> None:
    pins = pinned("constraints.txt")
    for line in read("requirements.txt").splitlines():
        if not line.startswith("#"):
            name, least = line.split(">=")
            assert numbers(pins[name]) >= numbers(least), name


def test_every_way_to_install_asks_for_the_same_python() -> None:
    project = tomllib.loads(read("pyproject.toml"))
    least = project["project"]["requires-python"].removeprefix(">=")
    assert project["tool"]["mypy"]["python_version"] == least
    assert project["tool"]["ruff"]["target-version"] == f"py{least.replace('.', '')}"
    assert f"sys.version_info < ({least.replace('.', ', ')})" in read("Makefile")
    assert f"{least} or newer" in read("README.md")
    conda = re.search(r"(?m)^  - python=([0-9.]+)$", read("environment.yml"))
    assert conda is not None
    assert numbers(conda[1]) >= numbers(least)


def test_conda_installs_the_same_files() -> None:
    text = read("environment.yml")
    assert "--requirement requirements.txt" in text
    assert "--constraint constraints.txt" in text
    assert "python=3.12" in text


def commands(page: str) -> list[str]:
    """What a page tells people to type: its indented lines and its code in a line, joined where they go on."""
    text = read(page).replace("\\\n", " ")
    indented = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return indented + re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("page", ["README.md", "docs/wsl.md"])
def test_commands_name_files_options_and_targets_that_exist(page: str) -> None:
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


@pytest.mark.parametrize("page", ["README.md", "docs/wsl.md"])
def test_links_lead_to_files_that_exist(page: str) -> None:
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", read(page)):
        assert link.startswith("http") or (ROOT / page).parent.joinpath(link).exists(), link
