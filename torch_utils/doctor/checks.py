"""Checks of packages, memory and disks, NVIDIA's driver and the GPUs that PyTorch sees."""

import os
import re
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dnnlib.text import first_line, format_bytes
from torch_utils.doctor.torch_facts import TorchFacts

OK, WARN, FAIL = "ok", "warn", "FAIL"  # FAIL: training is impossible
INSTALL = "python -m pip install -r requirements.txt -c constraints.txt"
REINSTALL = f"{INSTALL} --force-reinstall"
_TORCHVISION_LEAD = 15  # torch 2.N goes with torchvision 0.(N + 15)


@dataclass(frozen=True)
class Verdict:
    """One line of output."""

    level: str  # ok, warn or FAIL
    subject: str  # what was checked
    text: str  # what was found
    remedy: str = ""  # what to do; "" = nothing

    def __str__(self) -> str:
        return f"{self.level:<4} {self.subject}: {self.text}{self.remedy and f' -> {self.remedy}'}"


def check_packages(requirements: str, version_of: Callable[[str], str | None]) -> list[Verdict]:
    """Check the packages of requirements.txt except torch and torchvision."""
    present, found = [], []
    for name, minimum in parse(requirements).items():
        if name in ("torch", "torchvision"):
            continue
        version = version_of(name)
        if version is None:
            found.append(Verdict(FAIL, name, "not installed", INSTALL))
        elif as_numbers(version) < as_numbers(minimum):
            found.append(Verdict(FAIL, name, f"{version} is too old, {minimum} is needed", INSTALL))
        else:
            present.append(f"{name} {version}")
    return [Verdict(OK, "packages", ", ".join(present)), *found] if present else found


def check_pytorch(facts: TorchFacts, requirements: str) -> list[Verdict]:
    """Check PyTorch and torchvision, and that they were built for each other."""
    if facts.error:
        return [Verdict(FAIL, "PyTorch", f"cannot be imported ({facts.error})", REINSTALL)]
    minimum = parse(requirements)["torch"]
    if as_numbers(facts.version) < as_numbers(minimum):
        return [Verdict(FAIL, "PyTorch", f"{facts.version} is too old, {minimum} is needed", INSTALL)]
    build = f"built for CUDA {facts.cuda}" if facts.cuda else "built for the CPU only"
    found = Verdict(OK, "PyTorch", f"{facts.version}, {build}")
    if facts.torchvision_error:
        return [found, Verdict(FAIL, "torchvision", f"cannot be imported ({facts.torchvision_error})", REINSTALL)]
    expected = matching_torchvision(facts.version)
    builds = {version.partition("+")[2] for version in (facts.version, facts.torchvision)} - {""}
    if len(builds) > 1 or (expected and not facts.torchvision.startswith(f"{expected}.")):
        text = f"{facts.torchvision} was not built for PyTorch {facts.version}"
        return [found, Verdict(WARN, "torchvision", text, REINSTALL)]
    return [found, Verdict(OK, "torchvision", facts.torchvision)]


def matching_torchvision(torch_version: str) -> str | None:
    """Return the torchvision release for a torch release, "0.26" for "2.11.0"; None if the rule does not hold."""
    major, minor = as_numbers(torch_version)[:2]
    return f"0.{minor + _TORCHVISION_LEAD}" if major == 2 else None


def parse(text: str) -> dict[str, str]:
    """Return package -> version of the lines name>=version or name==version."""
    lines = (line.strip() for line in text.splitlines())
    return dict(re.split(r"[>=]=", line, maxsplit=1) for line in lines if line and not line.startswith("#"))


def as_numbers(version: str) -> tuple[int, ...]:
    """Return "2.11.0+cu130" as (2, 11, 0), "2.11" as well."""
    numbers = [int(part) for part in re.findall(r"\d+", re.split(r"[^0-9.]", version, maxsplit=1)[0])]
    return (*numbers, 0, 0, 0)[: max(3, len(numbers))]


_LITTLE_MEMORY = 3 << 30  # the demo takes about 1 GiB
_LITTLE_DISK = 2 << 30


def check_memory(meminfo: str, limits: Iterable[str], is_wsl: bool) -> list[Verdict]:
    """Check the available memory; no verdict where /proc/meminfo does not tell it."""
    sizes = {name: int(kib) * 1024 for name, kib in re.findall(r"(?m)^(\w+): +(\d+) kB$", meminfo)}
    if not {"MemTotal", "MemAvailable"} <= sizes.keys():
        return []
    total = min([sizes["MemTotal"], *(int(text) for text in limits if text.strip().isdecimal())])
    available = min(sizes["MemAvailable"], total)
    text = f"{format_bytes(total)}, {format_bytes(available)} available"
    if available >= _LITTLE_MEMORY:
        return [Verdict(OK, "memory", text)]
    remedy = "close other programs" + ("; raise memory=... in .wslconfig, see docs/wsl.md" if is_wsl else "")
    return [Verdict(WARN, "memory", f"{text}: too little memory may end the training", remedy)]


def check_disk(folder: str, free_bytes: int, is_wsl: bool) -> Verdict:
    """Check that a folder (an absolute path) has space and is not on a Windows disk seen from WSL."""
    text = f"{folder}: {format_bytes(free_bytes)} free"
    if free_bytes < _LITTLE_DISK:
        return Verdict(
            WARN, "disk", text, "free some space: a snapshot has three networks; --keep=2 keeps the newest two"
        )
    if is_wsl and re.match(r"/mnt/[a-z](/|$)", folder):
        text += ", on a Windows disk, which is many times slower from WSL"
        return Verdict(WARN, "disk", text, "keep program and data in the Linux home folder (cd ~)")
    return Verdict(OK, "disk", text)


def existing_folder(path: str) -> Path:
    """Return a folder with links resolved, or the nearest parent that exists."""
    folder = Path(os.path.expanduser(path)).resolve()
    return next(place for place in (folder, *folder.parents) if place.is_dir())


OLDER_CUDA = (  # the versions of constraints.txt, built with CUDA 12.6
    "python -m pip install --force-reinstall torch==2.11.0 torchvision==0.26.0 "
    "--index-url https://download.pytorch.org/whl/cu126"
)
NEWER_CUDA = f"update NVIDIA's driver (on WSL that of Windows) to 580 or newer and reinstall PyTorch: {REINSTALL}"
ON_WINDOWS = (
    "update NVIDIA's driver on Windows (never inside WSL), then `wsl --update` and `wsl --shutdown` in PowerShell"
)
WITHOUT_LINUX_DRIVER = "inside WSL remove any: sudo apt purge 'nvidia-*' 'libnvidia-*' 'libcuda*'"
_MIN_DRIVERS = {12: 525, 13: 580}  # CUDA generation -> oldest driver branch, from NVIDIA's tables


@dataclass(frozen=True)
class Driver:
    error: str = ""  # why it does not work; "" = it does
    version: str = ""  # 580.95.05


def ask_driver(which: Callable[[str], str | None]) -> Driver:
    """Run nvidia-smi, which WSL keeps outside the PATH."""
    in_wsl = "/usr/lib/wsl/lib/nvidia-smi"
    program = which("nvidia-smi") or (in_wsl if Path(in_wsl).exists() else "")
    if not program:
        return Driver("there is no nvidia-smi: no NVIDIA GPU, or no driver")
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, encoding="utf-8", errors="replace", timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return Driver(f"nvidia-smi does not work ({type(error).__name__}: {first_line(error)})")
    if done.returncode != 0:
        return Driver(f"nvidia-smi does not work ({first_line(done.stdout + done.stderr or 'no message')})")
    version = re.match(r"\d[\d.]*", done.stdout)  # one line per GPU
    return Driver(version=version[0]) if version else Driver("nvidia-smi sees no GPU")


def check_gpus(facts: TorchFacts, driver: Driver, visible: str | None, is_wsl: bool) -> list[Verdict]:
    """Check that PyTorch sees the GPUs and has kernels for them, or find out why not."""
    if facts.error:
        return [Verdict(WARN, "GPU", "unknown, because PyTorch cannot be imported")]
    if not facts.gpus:
        text, remedy = _why_unseen(facts, driver, visible, is_wsl)
        return [Verdict(WARN, "GPU", f"PyTorch sees none, training runs on the CPU: {text}", remedy)]
    found = []
    for index, gpu in enumerate(facts.gpus):
        memory = f"{format_bytes(gpu.total_bytes)}, {format_bytes(gpu.free_bytes)} free"
        text = f"{gpu.name}, {memory}, compute capability {gpu.capability[0]}.{gpu.capability[1]}"
        if gpu.is_supported:
            found.append(Verdict(OK, f"GPU {index}", text))
        else:
            level = WARN if index else FAIL  # training uses the first GPU
            newer = NEWER_CUDA if (facts.cuda or "").startswith("12.") else "install a newer PyTorch"
            remedy = newer if gpu.capability >= (9, 0) else OLDER_CUDA
            found.append(Verdict(level, f"GPU {index}", f"{text}: this PyTorch has no kernels for it", remedy))
    return found


def check_compiler(facts: TorchFacts, which: Callable[[str], str | None], include: Path) -> list[Verdict]:
    """Check what PyTorch compiles the networks for a GPU with: a C compiler, and Python's header in `include`."""
    if not facts.gpus:
        return []
    compiler = next(filter(which, (os.environ.get("CC") or "gcc", "clang", "cc")), None)
    has_header = (include / "Python.h").is_file()
    if compiler and has_header:
        return [Verdict(OK, "C compiler", compiler)]
    text = "Python.h is missing" if compiler else "none"
    remedy = "sudo apt install gcc python3-dev (conda: conda install gcc)"
    return [Verdict(WARN, "C compiler", f"{text}: the networks run uncompiled, which is slower", remedy)]


def _why_unseen(facts: TorchFacts, driver: Driver, visible: str | None, is_wsl: bool) -> tuple[str, str]:
    if driver.error:
        install = ON_WINDOWS if is_wsl else "install NVIDIA's driver; in a container: docker run --gpus=all"
        return driver.error, f"with an NVIDIA GPU: {install}. Without: the demo trains on the CPU, for more see Colab"
    if facts.cuda is None:
        return "this PyTorch is built for the CPU only", REINSTALL
    if visible is not None:
        return f"CUDA_VISIBLE_DEVICES={visible} hides it", "unset CUDA_VISIBLE_DEVICES"
    minimum = _MIN_DRIVERS.get(as_numbers(facts.cuda)[0], 0)
    if as_numbers(driver.version)[0] < minimum:
        text = f"the driver {driver.version} is too old, PyTorch's CUDA {facts.cuda} needs {minimum} or newer"
        update = ON_WINDOWS if is_wsl else "update NVIDIA's driver"
        older = "for a GPU older than RTX 50 and B200, with driver 525 or newer"
        return text, f"{update}; or, {older}, install PyTorch for CUDA 12: {OLDER_CUDA}"
    remedy = f"{ON_WINDOWS}; {WITHOUT_LINUX_DRIVER}" if is_wsl else "restart the machine"
    return facts.complaint or "PyTorch gives no reason", remedy
