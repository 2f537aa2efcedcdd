"""Checks of NVIDIA's driver and of the GPUs that PyTorch sees."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dnnlib.text import format_bytes
from torch_utils.doctor.packages import REINSTALL
from torch_utils.doctor.torch_facts import TorchFacts
from torch_utils.doctor.verdict import FAIL, OK, WARN, Verdict, first_line

OLDER_CUDA = (  # the versions of constraints.txt, built with CUDA 12.6
    "python -m pip install --force-reinstall torch==2.11.0 torchvision==0.26.0 "
    "--index-url https://download.pytorch.org/whl/cu126"
)
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
        return Driver(f"nvidia-smi does not work ({type(error).__name__}: {first_line(str(error))})")
    if done.returncode != 0:
        return Driver(f"nvidia-smi does not work ({first_line(done.stdout + done.stderr)})")
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
            remedy = "install a newer PyTorch" if gpu.capability >= (9, 0) else OLDER_CUDA
            found.append(Verdict(level, f"GPU {index}", f"{text}: this PyTorch has no kernels for it", remedy))
    return found


def _why_unseen(facts: TorchFacts, driver: Driver, visible: str | None, is_wsl: bool) -> tuple[str, str]:
    """Return reason and remedy."""
    if driver.error:
        install = ON_WINDOWS if is_wsl else "install NVIDIA's driver; in a container: docker run --gpus=all"
        return driver.error, f"with an NVIDIA GPU: {install}. Without: the demo trains on the CPU, for more see Colab"
    if facts.cuda is None:
        return "this PyTorch is built for the CPU only", REINSTALL
    if visible is not None:
        return f"CUDA_VISIBLE_DEVICES={visible} hides it", "unset CUDA_VISIBLE_DEVICES"
    minimum = _MIN_DRIVERS.get(_generation(facts.cuda), 0)
    if _generation(driver.version) < minimum:
        text = f"the driver {driver.version} is too old, PyTorch's CUDA {facts.cuda} needs {minimum} or newer"
        update = ON_WINDOWS if is_wsl else "update NVIDIA's driver"
        return text, f"{update}; or, with driver 525 or newer, install PyTorch for CUDA 12: {OLDER_CUDA}"
    remedy = f"{ON_WINDOWS}; {WITHOUT_LINUX_DRIVER}" if is_wsl else "restart the machine"
    return facts.complaint or "PyTorch gives no reason", remedy


def _generation(version: str) -> int:
    return int(re.sub(r"\D.*", "", version) or 0)
