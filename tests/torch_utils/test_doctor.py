"""The verdicts of the doctor, on this machine and on others, of which each check gets the facts."""

import ast
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from torch_utils.doctor import checks
from torch_utils.doctor.checks import FAIL, OK, WARN, Driver, Verdict
from torch_utils.doctor.torch_facts import Gpu, TorchFacts

ROOT = Path(__file__).parents[2]
REQUIREMENTS = "# comment\ntorch>=2.9\ntorchvision>=0.24\nnumpy>=1.26\npillow>=10.1\n"
GIB = 1 << 30
T4 = Gpu("Tesla T4", 15 * GIB, 14 * GIB, (7, 5), is_supported=True)
CPU = TorchFacts(version="2.11.0+cpu", torchvision="0.26.0+cpu")
CUDA = TorchFacts(version="2.11.0+cu130", cuda="13.0", torchvision="0.26.0+cu130", gpus=(T4,))
BLIND = replace(CUDA, gpus=(), complaint="CUDA unknown error")
DRIVER = Driver(version="580.95.05")


def levels(verdicts: list[Verdict]) -> list[str]:
    return [verdict.level for verdict in verdicts]


@pytest.mark.parametrize(
    "versions, expected",
    [
        ({"numpy": "2.4.6", "pillow": "13.0.0"}, [OK]),
        ({"numpy": "2.4.6"}, [OK, FAIL]),
        ({"numpy": "1.9.9", "pillow": "13.0.0"}, [OK, FAIL]),
    ],
)
def test_missing_and_old_packages(versions: dict[str, str], expected: list[str]) -> None:
    found = checks.check_packages(REQUIREMENTS, versions.get)
    assert levels(found) == expected
    assert all("constraints.txt" in verdict.remedy for verdict in found if verdict.level == FAIL)


@pytest.mark.parametrize(
    "facts, expected, words",
    [
        (CUDA, [OK, OK], "0.26.0"),
        (TorchFacts(error="ModuleNotFoundError: No module named 'torch'"), [FAIL], "cannot be imported (Module"),
        (replace(CPU, version="2.8.0"), [FAIL], "too old"),
        (replace(CUDA, torchvision="0.25.0+cu130"), [OK, WARN], "not built for"),
        (replace(CUDA, torchvision="0.26.0+cpu"), [OK, WARN], "not built for"),
        (replace(CUDA, torchvision_error="RuntimeError: operator torchvision::nms does not exist"), [OK, FAIL], "nms"),
    ],
)
def test_pytorch_and_torchvision(facts: TorchFacts, expected: list[str], words: str) -> None:
    found = checks.check_pytorch(facts, REQUIREMENTS)
    assert levels(found) == expected
    assert words in found[-1].text


@pytest.mark.skipif(sys.platform == "win32", reason="stands in for nvidia-smi by a shell script")
def test_driver_version_from_nvidia_smi(tmp_path: Path) -> None:
    script = tmp_path / "nvidia-smi"

    def ask(lines: str) -> Driver:
        script.write_text(f"#!/bin/sh\n{lines}\n")
        script.chmod(0o755)
        return checks.ask_driver(lambda name: str(script))

    assert ask("echo 580.95.05; echo 580.95.05") == Driver(version="580.95.05")  # of two GPUs
    assert "could not communicate" in ask("echo NVIDIA-SMI could not communicate with the driver; exit 9").error
    assert "sees no GPU" in ask("echo No devices were found").error


@pytest.mark.parametrize(
    "facts, driver, visible, is_wsl, text, remedy",
    [
        (BLIND, Driver("there is no nvidia-smi"), None, False, "training runs on the CPU", "docker run --gpus=all"),
        (CPU, DRIVER, None, False, "for the CPU only", "--force-reinstall"),
        (BLIND, DRIVER, "", False, "hides it", "unset"),
        (BLIND, replace(DRIVER, version="579.9"), None, False, "579.9 is too old, PyTorch's CUDA 13.0 needs 580", "RTX 50"),
        (BLIND, replace(DRIVER, version="537.13"), None, True, "too old", "driver on Windows"),
        (replace(BLIND, cuda="12.6"), replace(DRIVER, version="535.54"), None, False, "unknown error", "restart"),
        (BLIND, DRIVER, None, True, "CUDA unknown error", "apt purge"),
        (TorchFacts(error="broken"), DRIVER, None, False, "cannot be imported", ""),
    ],
)  # fmt: skip
def test_why_pytorch_sees_no_gpu(facts, driver, visible, is_wsl, text, remedy) -> None:
    (verdict,) = checks.check_gpus(facts, driver, visible, is_wsl)
    assert verdict.level == WARN  # the CPU trains as well
    assert text in verdict.text and remedy in verdict.remedy


def test_gpus_that_pytorch_has_no_kernels_for() -> None:
    old = replace(T4, capability=(6, 1), is_supported=False)
    first, second = checks.check_gpus(replace(CUDA, gpus=(old, T4)), DRIVER, None, False)
    assert (first.level, second.level) == (FAIL, OK) and "cu126" in first.remedy
    assert "Tesla T4, 15.0 GiB, 14.0 GiB free, compute capability 6.1: this PyTorch has no kernels" in first.text
    assert levels(checks.check_gpus(replace(CUDA, gpus=(T4, old)), DRIVER, None, False)) == [OK, WARN]
    new = replace(T4, capability=(12, 0), is_supported=False)
    (verdict,) = checks.check_gpus(replace(CUDA, cuda="12.6", gpus=(new,)), DRIVER, None, False)
    assert "580 or newer and reinstall PyTorch" in verdict.remedy and "cu126" not in verdict.remedy


def test_what_compiling_for_a_gpu_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    facts = replace(CUDA, gpus=(T4,))
    assert checks.check_compiler(BLIND, lambda name: None, tmp_path) == []  # without a GPU nothing is compiled
    without = checks.check_compiler(facts, lambda name: None, tmp_path)
    without_header = checks.check_compiler(facts, lambda name: name, tmp_path)
    assert levels(without + without_header) == [WARN, WARN] and "gcc python3-dev" in without[0].remedy
    (tmp_path / "Python.h").touch()
    assert checks.check_compiler(facts, {"clang": "/usr/bin/clang"}.get, tmp_path) == [
        Verdict(OK, "C compiler", "clang")
    ]


def test_memory_is_limited_by_the_container() -> None:
    def check(total_gib: int, available_gib: int, limit: str = "max\n", is_wsl: bool = False) -> Verdict:
        sizes = f"MemTotal:  {total_gib << 20} kB\nMemFree: 100 kB\nMemAvailable:   {available_gib << 20} kB\nHuge: 0\n"
        return checks.check_memory(sizes, ["", limit], is_wsl)[0]

    assert check(16, 12) == Verdict(OK, "memory", "16.0 GiB, 12.0 GiB available")
    assert check(16, 12, f"{2 * GIB}\n").text.startswith("2.0 GiB, 2.0 GiB")
    assert ".wslconfig" in check(4, 2, is_wsl=True).remedy
    assert checks.check_memory("", [], False) == []


@pytest.mark.parametrize(
    "folder, free_bytes, is_wsl, remedy",
    [
        ("/home/me", 100 * GIB, True, ""),
        ("/home/me", GIB, False, "free some space"),
        ("/mnt/c/Users/me/styleformer", 100 * GIB, True, "Linux home folder"),
        ("/mnt/c/images", 100 * GIB, False, ""),
    ],
)
def test_full_and_slow_disks(folder: str, free_bytes: int, is_wsl: bool, remedy: str) -> None:
    verdict = checks.check_disk(folder, free_bytes, is_wsl)
    assert verdict.level == (WARN if remedy else OK) and remedy in verdict.remedy and folder in verdict.text


def doctor(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the doctor in a Python in which some code runs first."""
    code = f"import runpy, sys; {code}\nrunpy.run_module('torch_utils.doctor', run_name='__main__')"
    return subprocess.run([sys.executable, "-c", code, *options], cwd=ROOT, capture_output=True, text=True)


def test_the_doctor_of_this_machine(tmp_path: Path) -> None:
    done = doctor("", f"--path={tmp_path / 'not' / 'yet'}")
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    assert {line[:5] for line in lines} <= {"ok   ", "warn "}
    subjects = [line[5:].split(":")[0].split()[0] for line in lines]
    assert {"Python", "packages", "PyTorch", "torchvision", "GPU", "disk"} <= set(subjects)
    assert f"{tmp_path}: " in done.stdout
    assert last.startswith("Training is possible on the ")


def test_without_pytorch_and_a_package_the_other_checks_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")")
    (tmp_path / "click.py").write_text("raise ImportError('click is for the scripts')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    forget = "import importlib.metadata as m; real = m.version; m.version = lambda name: real('gone-' * (name == 'scipy') + name)"
    done = doctor(forget)
    assert done.returncode == 1 and not done.stderr
    assert f"FAIL scipy: not installed -> {checks.INSTALL}" in done.stdout.splitlines()
    assert "FAIL PyTorch: cannot be imported (ModuleNotFoundError: No module named 'torch')" in done.stdout
    assert " disk: " in done.stdout
    assert done.stdout.splitlines()[-1] == "Training is not possible yet: scipy, PyTorch."


def test_an_older_python_is_reported_before_imports_it_cannot_parse() -> None:
    """The first modules are plain enough for Python 3.8, and the version comes before every import of ours."""
    folder = ROOT / "torch_utils" / "doctor"
    for path in (folder / "__init__.py", folder.parent / "__init__.py", folder / "__main__.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    least = int(project["requires-python"].removeprefix(">=3."))
    done = doctor(f"sys.version_info = (3, {least - 1}, 2)")
    assert done.returncode == 1
    assert done.stderr == f"FAIL Python: 3.{least - 1} is too old -> install Python 3.{least} or newer\n"
    assert doctor(f"sys.version_info = (3, {least}, 0)", "--help").returncode == 0
