"""Checks of NVIDIA's driver, of the GPUs that PyTorch sees, and of the operators compiled for them."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dnnlib.text import format_bytes
from torch_utils.architectures import has_kernels
from torch_utils.doctor.packages import INSTALL
from torch_utils.doctor.torch_facts import TorchFacts
from torch_utils.doctor.verdict import FAIL, OK, WARN, Verdict, first_line

OLDER_CUDA = (  # the versions of constraints.txt, built with CUDA 12.6
    "python -m pip install --force-reinstall torch==2.11.0 torchvision==0.26.0 "
    "--index-url https://download.pytorch.org/whl/cu126"
)
ON_WINDOWS = (
    "update NVIDIA's driver on Windows (never inside WSL), then `wsl --update` and `wsl --shutdown` in PowerShell"
)
WITHOUT_LINUX_DRIVER = "remove it: sudo apt purge 'nvidia-*' 'libnvidia-*' 'libcuda*'; the one on Windows is enough"
_LEAST_DRIVERS = {11: 450, 12: 525, 13: 580}  # CUDA generation -> driver branch that runs it, by NVIDIA's tables
_OLDER_GENERATION = 12  # of OLDER_CUDA


@dataclass(frozen=True)
class Driver:
    """What nvidia-smi says."""

    error: str = ""  # why it does not work; "" = it does
    version: str = ""  # 580.95.05


def ask_driver(which: Callable[[str], str | None]) -> Driver:
    """Return what nvidia-smi says, which WSL keeps in a folder of its own."""
    in_wsl = "/usr/lib/wsl/lib/nvidia-smi"
    program = which("nvidia-smi") or (in_wsl if Path(in_wsl).exists() else "")
    if not program:
        return Driver("there is no nvidia-smi: no NVIDIA GPU, or no driver")
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, encoding="utf-8", errors="replace", timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return Driver(f"nvidia-smi does not work ({type(error).__name__}: {first_line(str(error))})")
    if done.returncode != 0:
        return Driver(f"nvidia-smi does not work ({first_line(done.stdout + done.stderr)})")
    version = re.match(r"\d[\d.]*", done.stdout)  # a line for each GPU
    return Driver(version=version[0]) if version else Driver("nvidia-smi sees no GPU")


def check_gpus(
    facts: TorchFacts, driver: Driver, visible: str | None, is_wsl: bool, has_linux_driver: bool
) -> list[Verdict]:
    """Check that PyTorch sees the GPUs and has kernels for them, or find out why not.

    Args:
        facts: What PyTorch sees.
        driver: What NVIDIA's driver sees.
        visible: $CUDA_VISIBLE_DEVICES.
        is_wsl: Whether Linux runs inside Windows.
        has_linux_driver: Whether a driver for Linux stands before the one of Windows.
    """
    if facts.error:
        return [Verdict(WARN, "GPU", "unknown, because PyTorch cannot be imported")]
    if not facts.gpus:
        text, remedy = _why_unseen(facts, driver, visible, is_wsl, has_linux_driver)
        return [Verdict(WARN, "GPU", f"PyTorch sees none, training runs on the CPU: {text}", remedy)]
    found = []
    for index, gpu in enumerate(facts.gpus):
        subject, capability = f"GPU {index}", ".".join(map(str, gpu.capability))
        text = f"{gpu.name}, {format_bytes(gpu.total_bytes)}, {format_bytes(gpu.free_bytes)} of them free"
        if has_kernels(gpu.capability, facts.architectures):
            found.append(Verdict(OK, subject, f"{text}, compute capability {capability}"))
        else:
            text += f": this PyTorch has no kernels for compute capability {capability}"
            advice = "install a newer PyTorch" if gpu.capability >= (9, 0) else OLDER_CUDA
            found.append(Verdict(WARN if index else FAIL, subject, text, advice))  # training takes the first one
    return found


def _why_unseen(
    facts: TorchFacts, driver: Driver, visible: str | None, is_wsl: bool, has_linux_driver: bool
) -> tuple[str, str]:
    """The reason and the remedy."""
    update = ON_WINDOWS if is_wsl else "update NVIDIA's driver"
    if has_linux_driver:
        return "an NVIDIA driver for Linux is installed and hides the one of Windows", WITHOUT_LINUX_DRIVER
    if driver.error:
        remedy = ON_WINDOWS if is_wsl else "install NVIDIA's driver; in a container: docker run --gpus=all"
        return driver.error, f"without such a GPU nothing: the demo runs, for more there is Colab. With one: {remedy}"
    if facts.cuda is None:
        return "this PyTorch is a build for the CPU alone", f"{INSTALL} --force-reinstall"
    if visible is not None and visible.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={visible} hides it", "unset CUDA_VISIBLE_DEVICES"
    least, version = _LEAST_DRIVERS.get(_generation(facts.cuda), 0), _generation(driver.version)
    if version < least:
        has_choice = version >= _LEAST_DRIVERS[_OLDER_GENERATION]
        text = f"the driver {driver.version} is too old, PyTorch's CUDA {facts.cuda} needs {least} or newer"
        return text, f"{update}; or take PyTorch for an older CUDA: {OLDER_CUDA}" if has_choice else update
    remedy = ON_WINDOWS if is_wsl else "after an update of the driver restart the machine"
    if visible is not None:
        remedy = f"unset CUDA_VISIBLE_DEVICES, which is {visible}; if that is not it: {remedy}"
    return facts.complaint or "it does not say why", remedy


def check_operators(facts: TorchFacts) -> list[Verdict]:
    """Say whether the compiled operators are built or there is a compiler for them; nothing without a GPU."""
    if not facts.gpus:
        return []
    if facts.operators_problem:
        text = f"plain PyTorch takes their place: {facts.operators_problem}"
        remedy = "training works without; `python -m torch_utils.ops.native` says more"
        return [Verdict(WARN, "CUDA operators", text, remedy)]
    return [Verdict(OK, "CUDA operators", facts.operators)]


def _generation(version: str) -> int:
    return int(re.sub(r"\D.*", "", version) or 0)
