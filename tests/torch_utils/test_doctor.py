"""The doctor says the right thing about machines that are not at hand: each check gets the facts of one."""

import ast
import json
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from torch_utils.doctor import __main__ as main
from torch_utils.doctor import gpu, machine, packages, places, torch_facts
from torch_utils.doctor.gpu import Driver
from torch_utils.doctor.torch_facts import Gpu, OpsFacts, TorchFacts
from torch_utils.doctor.verdict import FAIL, OK, WARN, Verdict, guarded

ROOT = Path(__file__).parents[2]
REQUIREMENTS = "# comment\ntorch>=2.9\ntorchvision>=0.24\nnumpy>=1.26\npillow>=10.1\n"
CONSTRAINTS = "torch==2.11.0\ntorchvision==0.26.0\nnumpy==2.4.6\npillow==13.0.0\nruff==1.0\n"
GIB = 1 << 30
T4 = Gpu("Tesla T4", 15 * GIB, 14 * GIB, (7, 5))
WSL2, WSL1 = "5.15.90.1-microsoft-standard-WSL2", "4.4.0-19041-Microsoft"
CPU = TorchFacts(version="2.11.0+cpu", torchvision="0.26.0+cpu")
CUDA = TorchFacts(
    version="2.11.0+cu130", cuda="13.0", torchvision="0.26.0+cu130", gpus=(T4,), has_triton=True,
    architectures=("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"),
)  # fmt: skip
BLIND = replace(CUDA, gpus=(), architectures=(), complaint="CUDA unknown error")
DRIVER = Driver("/usr/bin/nvidia-smi", "", "580.95.05", ("Tesla T4",))


def levels(verdicts: list[Verdict]) -> list[str]:
    return [verdict.level for verdict in verdicts]


def only(verdicts: list[Verdict]) -> Verdict:
    (verdict,) = verdicts
    return verdict


def test_a_verdict_is_a_line_and_its_remedy_another() -> None:
    assert str(Verdict(OK, "disk", "fine")) == "ok   disk: fine"
    assert str(Verdict(FAIL, "disk", "full", "make room")) == "FAIL disk: full\n     -> make room"


def test_a_check_that_raises_is_a_warning() -> None:
    verdict = only(guarded("disk", lambda: [Verdict(OK, "disk", str(1 // 0))]))
    assert (verdict.level, verdict.subject) == (WARN, "disk")
    assert "ZeroDivisionError" in verdict.text


def test_python_must_be_the_one_that_pyproject_asks_for() -> None:
    assert levels(packages.check_python((3, 11, 0), "linux")) == [OK]
    assert levels(packages.check_python((3, 10, 12), "linux")) == [FAIL]
    assert levels(packages.check_python((3, 12, 1), "win32")) == [OK, WARN]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=" + ".".join(map(str, packages.LEAST_PYTHON))


def test_the_doctor_itself_can_be_read_by_python_3_10() -> None:
    """Which it has to tell that it is too old."""
    for path in [*(ROOT / "torch_utils" / "doctor").glob("*.py"), ROOT / "dnnlib" / "parallel.py"]:
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))


@pytest.mark.parametrize(
    "versions, problems, expected",
    [
        ({"numpy": "2.4.6", "pillow": "13.0.0"}, {}, [OK]),
        ({"numpy": "2.4.6"}, {}, [OK, FAIL]),
        ({"numpy": "1.9.9", "pillow": "13.0.0"}, {}, [OK, FAIL]),
        ({"numpy": "2.4.6", "pillow": "13.0.0"}, {"PIL": "ImportError: libjpeg"}, [OK, FAIL]),
    ],
)
def test_missing_old_and_broken_packages(
    versions: dict[str, str], problems: dict[str, str], expected: list[str]
) -> None:
    found = packages.check_packages(REQUIREMENTS, CONSTRAINTS, versions.get, lambda name: problems.get(name, ""))
    assert levels(found) == expected
    assert all("constraints.txt" in verdict.remedy for verdict in found if verdict.level == FAIL)


def test_a_version_other_than_the_tested_one_is_named_and_accepted() -> None:
    versions = {"numpy": "2.5.0", "pillow": "13.0.0"}
    found = only(packages.check_packages(REQUIREMENTS, CONSTRAINTS, versions.get, lambda name: ""))
    assert found.text == "numpy 2.5.0 (tested: 2.4.6), pillow 13.0.0"


@pytest.mark.parametrize(
    "facts, expected, words",
    [
        (CUDA, [OK, OK], "0.26.0"),
        (TorchFacts(error="ModuleNotFoundError: No module named 'torch'"), [FAIL], "not installed"),
        (TorchFacts(error="importing it ended Python with code -4 (it printed nothing)"), [FAIL], "code -4"),
        (replace(CPU, version="2.8.0"), [FAIL], "too old"),
        (replace(CUDA, torchvision="0.25.0+cu130"), [OK, WARN], "goes with 0.26"),
        (replace(CUDA, torchvision="0.26.0+cpu"), [OK, WARN], "different builds"),
        (replace(CUDA, torchvision_error="RuntimeError: operator torchvision::nms does not exist"), [OK, FAIL], "nms"),
    ],
)
def test_pytorch_and_torchvision(facts: TorchFacts, expected: list[str], words: str) -> None:
    found = packages.check_pytorch(facts, REQUIREMENTS, CONSTRAINTS)
    assert levels(found) == expected
    assert words in found[-1].text


def test_the_pair_of_the_tested_set_matches() -> None:
    tested = packages.parse((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    least = packages.parse((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    assert tested["torchvision"].startswith(f"{packages.matching_torchvision(tested['torch'])}.")
    assert least["torchvision"] == packages.matching_torchvision(least["torch"])


def test_driver_there_missing_and_broken() -> None:
    assert only(gpu.check_driver(DRIVER, CUDA, False)).level == OK
    assert "docker run --gpus=all" in only(gpu.check_driver(Driver(), BLIND, False)).remedy
    broken = only(gpu.check_driver(Driver("/usr/lib/wsl/lib/nvidia-smi", "Failed to initialize NVML"), BLIND, True))
    assert "NVML" in broken.text and "on Windows" in broken.remedy


@pytest.mark.parametrize(
    "cuda, version, is_too_old",
    [("13.0", "579.9", True), ("13.0", "580.65", False), ("12.6", "535.54", False), ("12.6", "470.82", True),
     ("13.3", "535.54", True), (None, "470.82", False)],
)  # fmt: skip
def test_a_driver_too_old_for_the_cuda_of_pytorch(cuda: str | None, version: str, is_too_old: bool) -> None:
    driver = replace(DRIVER, version=version)
    verdict = only(gpu.check_driver(driver, replace(BLIND, cuda=cuda), is_wsl=False))
    assert verdict.level == (WARN if is_too_old else OK)
    if is_too_old and version != "470.82":
        assert f"{version} is too old, PyTorch's CUDA {cuda} needs 580 or newer" in verdict.text
        assert gpu.OLDER_CUDA in verdict.remedy
    assert (
        only(gpu.check_driver(driver, replace(CUDA, cuda=cuda), False)).level == OK
    )  # it works, as PyTorch sees the GPU


@pytest.mark.skipif(sys.platform == "win32", reason="stands in for nvidia-smi by a shell script")
def test_nvidia_smi_is_asked_and_its_answer_read(tmp_path: Path) -> None:
    script = tmp_path / "nvidia-smi"

    def ask(lines: str) -> Driver:
        script.write_text(f"#!/bin/sh\n{lines}\n")
        script.chmod(0o755)
        return gpu.ask_driver(lambda name: str(script))

    two = ask("echo '580.95.05, Tesla T4'; echo '580.95.05, NVIDIA GeForce RTX 3060, Ti'")
    assert two == Driver(str(script), "", "580.95.05", ("Tesla T4", "NVIDIA GeForce RTX 3060, Ti"))
    assert "communicate" in ask("echo NVIDIA-SMI could not communicate with the driver; exit 9").error
    assert ask("echo No devices were found").gpus == ()


@pytest.mark.parametrize(
    "facts, driver, visible, is_wsl, text, remedy",
    [
        (BLIND, Driver(), None, False, "training runs on the CPU", "Colab"),
        (CPU, DRIVER, None, False, "for the CPU alone", "--force-reinstall"),
        (BLIND, DRIVER, "-1", False, "hides it", "unset"),
        (BLIND, DRIVER, "", False, "hides it", "unset"),
        (BLIND, replace(DRIVER, version="535.54.03"), None, False, "needs 580", "whl/cu126"),
        (BLIND, replace(DRIVER, version="537.13"), None, True, "too old", "driver on Windows"),
        (BLIND, DRIVER, "3", True, "CUDA unknown error", "unset CUDA_VISIBLE_DEVICES, which is 3"),
        (BLIND, DRIVER, None, False, "CUDA unknown error", "restart"),
        (BLIND, DRIVER, None, True, "CUDA unknown error", "wsl --update"),
        (TorchFacts(error="broken"), DRIVER, None, False, "cannot be imported", ""),
    ],
)
def test_why_pytorch_sees_no_gpu(
    facts: TorchFacts, driver: Driver, visible: str | None, is_wsl: bool, text: str, remedy: str
) -> None:
    verdict = only(gpu.check_gpus(facts, driver, visible, is_wsl))
    assert verdict.level == WARN  # the CPU trains as well
    assert text in verdict.text
    assert remedy in verdict.remedy


def test_an_older_cuda_is_offered_only_to_a_driver_that_runs_it() -> None:
    verdict = only(gpu.check_gpus(BLIND, replace(DRIVER, version="470.82"), None, False))
    assert verdict.remedy == "update NVIDIA's driver"


def test_an_old_gpu_beside_a_good_one_prevents_nothing() -> None:
    old = replace(T4, name="GTX 1080", capability=(6, 1))
    found = gpu.check_gpus(replace(CUDA, gpus=(T4, old, T4)), DRIVER, None, False)
    assert levels(found) == [OK, WARN, OK]
    assert "CUDA_VISIBLE_DEVICES=0,2 " in found[1].remedy
    assert (
        "CUDA_VISIBLE_DEVICES=3,5 "
        in gpu.check_gpus(replace(CUDA, gpus=(T4, old, T4)), DRIVER, "3, 4, 5", False)[1].remedy
    )
    found = gpu.check_gpus(replace(CUDA, gpus=(old, T4)), DRIVER, None, False)
    assert levels(found) == [FAIL, OK]  # training takes the first one
    assert "CUDA_VISIBLE_DEVICES=1 " in found[0].remedy


def test_a_gpu_is_described_with_its_precision() -> None:
    verdict = only(gpu.check_gpus(CUDA, DRIVER, None, False))
    assert verdict.level == OK
    assert all(word in verdict.text for word in ("Tesla T4", "15.0 GiB, 14.0 GiB", "7.5", "means fp16"))
    h100 = replace(CUDA, gpus=(Gpu("H100", 80 * GIB, 10 * GIB, (9, 0)), T4))
    found = gpu.check_gpus(h100, DRIVER, None, False)
    assert levels(found) == [OK, WARN, OK]  # its memory is in use
    assert "means bf16" in found[0].text


@pytest.mark.parametrize(
    "capability, expected, remedy",
    [((6, 1), FAIL, "cu126"), ((7, 0), FAIL, "cu126"), ((8, 9), OK, ""), ((12, 1), OK, ""), ((13, 0), OK, "")],
)
def test_gpus_that_pytorch_has_no_kernels_for(capability: tuple[int, int], expected: str, remedy: str) -> None:
    facts = replace(CUDA, gpus=(replace(T4, capability=capability),))
    verdict = only(gpu.check_gpus(facts, DRIVER, None, False))
    assert verdict.level == expected
    assert remedy in verdict.remedy


def test_precision_is_what_training_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor may not import training, so it knows it a second time."""
    from training.precision import resolve_precision

    for capability in ((7, 0), (7, 5), (8, 0), (8, 6), (9, 0), (12, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert gpu.precision(capability) == resolve_precision("auto", torch.device("cuda")).name


def test_what_torch_compile_needs() -> None:
    def check(facts: TorchFacts, programs: set[str], has_headers: bool = True, **environ: str) -> Verdict:
        return only(gpu.check_compile(facts, lambda name: name if name in programs else None, environ, has_headers))

    assert check(CUDA, {"gcc"}).level == OK
    assert check(CPU, set()).level == OK
    assert "no C compiler" in check(CUDA, set()).text
    assert check(CUDA, {"mycc"}, CC="mycc").level == OK
    assert "header files" in check(CUDA, {"gcc"}, has_headers=False).text
    assert "triton" in check(replace(CUDA, has_triton=False), {"gcc"}).text


def test_the_state_of_the_compiled_operators() -> None:
    def check(**ops: str) -> Verdict:
        return only(gpu.check_ops(replace(CUDA, ops=OpsFacts(**ops))))

    assert only(gpu.check_ops(CPU)).text == "not used on the CPU"
    assert check(problem="there is no nvcc: pip install this").level == WARN
    assert "built" in check(library="/cache/lib.so").text
    assert "the first training builds them with /usr/bin/nvcc" in check(nvcc="/usr/bin/nvcc").text
    assert "STYLEFORMER_OPS=reference" in check(mode="reference").text


@pytest.mark.parametrize(
    "threads, has_gpu, level",
    [(None, False, OK), ("", False, OK), ("4", False, OK), ("16", False, WARN), ("1", False, WARN), ("1", True, OK),
     ("0", True, WARN), ("many", True, WARN)],
)  # fmt: skip
def test_odd_numbers_of_threads(threads: str | None, has_gpu: bool, level: str) -> None:
    assert only(machine.check_cpu(8, threads, has_gpu)).level == level


def test_memory_is_bounded_by_the_container() -> None:
    meminfo = "MemTotal:       16384000 kB\nMemFree: 100 kB\nMemAvailable:   12288000 kB\nHugePages_Total:       0\n"
    assert machine.memory(meminfo, ["", "max\n"]) == (16384000 * 1024, 12288000 * 1024)
    assert machine.memory(meminfo, [f"{2 * GIB}\n"]) == (2 * GIB, 2 * GIB)
    assert only(machine.check_memory(16 * GIB, 12 * GIB, False)).level == OK
    assert ".wslconfig" in only(machine.check_memory(4 * GIB, 2 * GIB, True)).remedy
    assert only(machine.check_memory(16 * GIB, GIB, True)).remedy == "close other programs"


def test_shared_memory_of_docker_is_too_small() -> None:
    assert "--shm-size" in only(machine.check_shared_memory(64 << 20)).remedy
    assert only(machine.check_shared_memory(8 * GIB)).level == OK
    assert only(machine.check_shared_memory(None)).level == OK


def test_few_open_files() -> None:
    assert only(machine.check_open_files(256)).level == WARN
    assert only(machine.check_open_files(1024)).level == OK
    assert machine.check_open_files(-1) == machine.check_open_files(None) == []


def test_wsl_is_recognised_by_its_kernel() -> None:
    versions = [places.wsl_version(kernel) for kernel in ("6.1.0-13-amd64", WSL1, WSL2, "4.19.84-microsoft-standard")]
    assert versions == [0, 1, 2, 2]
    assert places.check_wsl("6.1.0-13-amd64", False, True) == []
    assert "--set-version" in only(places.check_wsl(WSL1, False, False)).remedy
    assert levels(places.check_wsl(WSL2, True, False)) == [OK]
    assert levels(places.check_wsl(WSL2, False, True)) == [OK, WARN, WARN]


MOUNTS = "/dev/sdc / ext4 rw 0 0\nC:\\134 /mnt/c 9p rw 0 0\nD: /win\\040disk 9p rw 0 0\ndrive /content/drive fuse.drive rw 0 0\n"


@pytest.mark.parametrize(
    "folder, kernel, words",
    [
        ("/home/me/styleformer", WSL2, ""),
        ("/mnt/c/Users/me/styleformer", WSL2, "disk of Windows"),
        ("/mnt/d", WSL2, "disk of Windows"),
        ("/win disk/pictures", WSL2, "disk of Windows"),
        ("/mnt/data/pictures", WSL2, ""),
        ("/mnt/c/pictures", "6.1.0-13-amd64", ""),
        ("/content/drive/MyDrive/flowers", "6.1.0", "Google Drive"),
        ("/content/flowers", "6.1.0", ""),
    ],
)
def test_slow_places(folder: str, kernel: str, words: str) -> None:
    found = places.check_place(folder, kernel, MOUNTS)
    assert (words in only(found).text) if words else found == []


def test_disks_full_slow_and_read_only(tmp_path: Path) -> None:
    assert only(places.check_disk("d", 100 * GIB, 1e9, 1e9)).level == OK
    assert "make room" in only(places.check_disk("d", GIB, 1e9, 1e9)).remedy
    assert "slow" in only(places.check_disk("d", 100 * GIB, 5e6, 1e9)).text
    assert "nothing can be written" in only(places.check_disk("d", 100 * GIB, *places.measure(tmp_path / "gone"))).text


def test_the_speed_of_a_folder_is_measured_and_nothing_stays(tmp_path: Path) -> None:
    write, read = places.measure(tmp_path)
    assert write is not None and write > 0
    assert read is not None and read > 0
    assert not list(tmp_path.iterdir())
    assert places.existing_folder(str(tmp_path / "not" / "yet")) == tmp_path


def test_facts_survive_the_way_between_processes() -> None:
    facts = replace(CUDA, ops=OpsFacts(nvcc="/usr/bin/nvcc"))
    assert torch_facts.from_json(torch_facts.to_json(facts)) == facts


def doctor(*options: str, without: str = "") -> subprocess.CompletedProcess[str]:
    """Run the doctor; `without` is a module that cannot be imported in any of its processes."""
    code = f"import runpy, sys; sys.modules[{without!r}] = None; runpy.run_module(sys.argv.pop(1), run_name='__main__')"
    command = [sys.executable, "-c", code, "torch_utils.doctor", *options] if without else []
    command = command or [sys.executable, "-m", "torch_utils.doctor", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_doctor_of_this_machine(tmp_path: Path) -> None:
    done = doctor(f"--path={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines()[:-1] if not line.startswith("     -> ")]
    assert {line[:5] for line in lines} <= {"ok   ", "warn "}
    subjects = {line[5:].split(":")[0] for line in lines}
    assert {"Python", "packages", "PyTorch", "torchvision", "NVIDIA driver", "CPU", "memory", "disk"} <= subjects
    assert str(tmp_path) in done.stdout
    assert "Training is possible" in done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_a_missing_package_is_a_failure_and_the_other_checks_go_on() -> None:
    done = doctor("--json", without="scipy")
    found = {verdict["subject"]: verdict for verdict in json.loads(done.stdout)}
    assert done.returncode == 1
    assert found["scipy"]["level"] == FAIL
    assert found["disk"]["level"] in (OK, WARN)


def test_pytorch_that_cannot_be_imported_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    verdict = only(packages.check_pytorch(torch_facts.ask(), REQUIREMENTS, CONSTRAINTS))
    assert verdict.level == FAIL
    assert "libcudart.so.13" in verdict.text


def test_pytorch_that_crashes_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "code -4" in torch_facts.ask().error


def test_facts_are_found_among_what_libraries_print() -> None:
    printed = f"a notice\nfacts: {torch_facts.to_json(CUDA)}\na library says good-bye\n"
    assert torch_facts.from_output(printed) == CUDA
    for broken in ("", "only a notice\n", "facts: {\n"):
        assert "could not be found out" in torch_facts.from_output(broken).error


def test_an_older_python_is_told_before_anything_it_cannot_read() -> None:
    """The first modules are plain enough for Python 3.8, and the version comes before every import of ours."""
    folder = ROOT / "torch_utils" / "doctor"
    for path in (folder / "__init__.py", folder.parent / "__init__.py", folder / "__main__.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    code = (
        "import sys, runpy; sys.version_info = (3, 9, 2); runpy.run_module('torch_utils.doctor', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["FAIL Python: 3.9 is too old", "     -> install Python 3.11 or newer"]


def test_a_nearly_full_disk_is_neither_filled_nor_called_unwritable(tmp_path: Path, monkeypatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(places, "measure", lambda folder: pytest.fail("writes"))
    verdict = only([found for found in main.check_folder(str(tmp_path), "6.1.0") if found.subject == "disk"])
    assert verdict.level == WARN and "make room" in verdict.remedy and "100.0 MiB free" in verdict.text


def test_bytes_that_are_no_text_do_no_harm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import os; os.write(1, bytes([255, 10])); os._exit(1)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "code 1" in torch_facts.ask().error
