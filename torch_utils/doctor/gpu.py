"""Checks of NVIDIA's driver, of the GPUs that PyTorch sees, and of what makes training on them faster."""

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dnnlib.text import format_bytes
from torch_utils.architectures import has_kernels
from torch_utils.doctor.packages import INSTALL
from torch_utils.doctor.torch_facts import ROOT, Gpu, TorchFacts
from torch_utils.doctor.verdict import FAIL, OK, WARN, Verdict, first_line

OLDER_CUDA = (  # the versions of constraints.txt, built with CUDA 12.6
    "python -m pip install --force-reinstall torch==2.11.0 torchvision==0.26.0 "
    "--index-url https://download.pytorch.org/whl/cu126"
)
ON_WINDOWS = (
    "update NVIDIA's driver on Windows (never inside WSL), then `wsl --update` and `wsl --shutdown` in PowerShell"
)
_LEAST_DRIVERS = {11: 450, 12: 525, 13: 580}  # CUDA generation -> driver branch that runs it, by NVIDIA's tables
_OLDER_GENERATION = 12  # of OLDER_CUDA
_LITTLE_BYTES = 4 << 30


@dataclass(frozen=True)
class Driver:
    """What nvidia-smi says."""

    program: str = ""  # its path; "" = it is not there
    error: str = ""  # why it does not work; "" = it does
    version: str = ""  # 580.95.05
    gpus: tuple[str, ...] = ()  # names


def ask_driver(which: Callable[[str], str | None]) -> Driver:
    """Return what nvidia-smi says, which WSL keeps in a folder of its own."""
    in_wsl = "/usr/lib/wsl/lib/nvidia-smi"
    program = which("nvidia-smi") or (in_wsl if Path(in_wsl).exists() else "")
    if not program:
        return Driver()
    command = [program, "--query-gpu=driver_version,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return Driver(program, f"{type(error).__name__}: {first_line(str(error))}")
    if done.returncode != 0:
        return Driver(program, first_line(done.stdout + done.stderr))
    rows = [line.split(", ", maxsplit=1) for line in done.stdout.splitlines() if ", " in line]
    return Driver(program, version=rows[0][0] if rows else "", gpus=tuple(name for _, name in rows))


def check_driver(driver: Driver, facts: TorchFacts, is_wsl: bool) -> list[Verdict]:
    """Check that NVIDIA's driver is there, works, and is new enough for the CUDA that PyTorch is built with."""
    if driver.gpus:
        reason = None if facts.gpus else _too_old(driver, facts.cuda, is_wsl)  # with GPUs seen, it is new enough
        if reason:
            return [Verdict(WARN, "NVIDIA driver", *reason)]
        return [Verdict(OK, "NVIDIA driver", f"{driver.version}, with {', '.join(driver.gpus)}")]
    remedy = ON_WINDOWS if is_wsl else "install NVIDIA's driver; in a container: docker run --gpus=all"
    if driver.error:
        return [Verdict(WARN, "NVIDIA driver", f"nvidia-smi does not work ({driver.error})", remedy)]
    text = "nvidia-smi sees no GPU" if driver.program else "there is no nvidia-smi: no NVIDIA GPU, or no driver"
    return [Verdict(WARN, "NVIDIA driver", text, f"without such a GPU: nothing to do. With one: {remedy}")]


def check_gpus(facts: TorchFacts, driver: Driver, visible: str | None, is_wsl: bool) -> list[Verdict]:
    """Check that PyTorch sees the GPUs, or find out why not; `visible` is $CUDA_VISIBLE_DEVICES."""
    if facts.gpus:
        fit = [index for index, gpu in enumerate(facts.gpus) if has_kernels(gpu.capability, facts.architectures)]
        numbers = visible.split(",") if visible else [str(index) for index in range(len(facts.gpus))]
        without = f"CUDA_VISIBLE_DEVICES={','.join(numbers[index].strip() for index in fit)} python train.py ..."
        found = [_check_gpu(index, gpu, index in fit, without) for index, gpu in enumerate(facts.gpus)]
        if 0 in fit:  # training takes the first one
            found = [[replace(v, level=WARN) if v.level == FAIL else v for v in verdicts] for verdicts in found]
        return [verdict for verdicts in found for verdict in verdicts]
    if facts.error:
        return [Verdict(WARN, "GPU", "unknown, because PyTorch cannot be imported")]
    if not driver.gpus:
        text = "none that PyTorch sees: training runs on the CPU, in fp32"
        return [Verdict(WARN, "GPU", text, "enough for the demo; for more, a machine with an NVIDIA GPU, or Colab")]
    text, remedy = _why_unseen(facts, driver, visible, is_wsl)
    return [Verdict(WARN, "GPU", f"PyTorch does not see it: {text}", remedy)]


def _why_unseen(facts: TorchFacts, driver: Driver, visible: str | None, is_wsl: bool) -> tuple[str, str]:
    """The reason and the remedy where there is a driver with a GPU."""
    if facts.cuda is None:
        return "this PyTorch is a build for the CPU alone", f"{INSTALL} --force-reinstall"
    if visible is not None and visible.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={visible} hides it", "unset CUDA_VISIBLE_DEVICES"
    if reason := _too_old(driver, facts.cuda, is_wsl):
        return reason
    remedy = ON_WINDOWS if is_wsl else "after an update of the driver restart the machine"
    if visible is not None:
        remedy = f"unset CUDA_VISIBLE_DEVICES, which is {visible}; if that is not it: {remedy}"
    return facts.complaint or "it does not say why", remedy


def _too_old(driver: Driver, cuda: str | None, is_wsl: bool) -> tuple[str, str] | None:
    """Why a driver does not run PyTorch's CUDA, and the remedy; None where it does."""
    least, version = _LEAST_DRIVERS.get(_generation(cuda or ""), 0), _generation(driver.version)
    if version >= least:
        return None
    text = f"the driver {driver.version} is too old, PyTorch's CUDA {cuda} needs {least} or newer"
    update = ON_WINDOWS if is_wsl else "update NVIDIA's driver"
    has_choice = version >= _LEAST_DRIVERS[_OLDER_GENERATION]
    return text, f"{update}; or take PyTorch for an older CUDA: {OLDER_CUDA}" if has_choice else update


def _check_gpu(index: int, gpu: Gpu, is_fit: bool, without: str) -> list[Verdict]:
    """Describe a GPU; check that PyTorch has kernels for it and that its memory is free.

    `without` is the command that trains on those for which it has.
    """
    subject = f"GPU {index}"
    capability = f"{gpu.capability[0]}.{gpu.capability[1]}"
    if not is_fit:
        text = f"{gpu.name} has compute capability {capability}, for which this PyTorch has no kernels"
        advice = "install a newer PyTorch" if gpu.capability >= (9, 0) else f"a build for an older CUDA: {OLDER_CUDA}"
        return [Verdict(FAIL, subject, text, f"train without it: {without}; or {advice}")]
    memory = f"{format_bytes(gpu.total_bytes)}, {format_bytes(gpu.free_bytes)} of them free"
    text = f"{gpu.name}, {memory}, compute capability {capability}, --precision=auto means {precision(gpu.capability)}"
    found = [Verdict(OK, subject, text)]
    if gpu.free_bytes < gpu.total_bytes // 2:
        found.append(
            Verdict(WARN, subject, "more than half of its memory is in use", "nvidia-smi shows by whom; end that")
        )
    if gpu.total_bytes < _LITTLE_BYTES:
        found.append(Verdict(WARN, subject, "little memory", "--batch-gpu=auto finds the passes that fit"))
    return found


def precision(capability: tuple[int, int]) -> str:
    """What --precision=auto means on a GPU."""
    return "bf16" if capability >= (8, 0) else "fp16"


def check_compile(
    facts: TorchFacts, which: Callable[[str], str | None], environ: Mapping[str, str], has_python_headers: bool
) -> list[Verdict]:
    """Check what torch.compile needs on GPUs."""
    if not facts.gpus:
        return [Verdict(OK, "torch.compile", "--compile=auto leaves it out on the CPU")]
    if old := [gpu.name for gpu in facts.gpus if gpu.capability < (7, 0)]:
        return [Verdict(WARN, "torch.compile", f"it does not support {old[0]}", "nothing: training does without it")]
    install = "sudo apt install -y gcc python3-dev; without it training is slower, no more"
    if not facts.has_triton:
        return [Verdict(WARN, "torch.compile", "the package triton is missing", f"{INSTALL} --force-reinstall")]
    compiler = next(filter(None, (which(name) for name in (environ.get("CC", ""), "gcc", "clang", "cc") if name)), None)
    if compiler is None:
        return [Verdict(WARN, "torch.compile", "there is no C compiler", install)]
    if not has_python_headers:
        return [Verdict(WARN, "torch.compile", "Python's header files are missing", install)]
    return [Verdict(OK, "torch.compile", f"triton and {compiler}")]


def check_ops(facts: TorchFacts) -> list[Verdict]:
    """Say whether the compiled operators are built, or could be."""
    ops, subject = facts.ops, "CUDA operators"
    if not facts.gpus:
        return [Verdict(OK, subject, "not used on the CPU")]
    if ops.problem:
        text = f"plain PyTorch takes their place: {ops.problem}"
        return [Verdict(WARN, subject, text, "training works; `python -m torch_utils.ops.native` says more")]
    if ops.mode == "reference":
        return [Verdict(OK, subject, "plain PyTorch takes their place, as STYLEFORMER_OPS=reference says")]
    if ops.library:
        return [Verdict(OK, subject, f"built, {ops.library}")]
    return [Verdict(OK, subject, f"the first training builds them with {ops.nvcc}, in about a minute (--build: now)")]


def build_ops() -> list[Verdict]:
    """Build and check the compiled operators, their own doctor printing as it goes, to the error stream."""
    done = subprocess.run([sys.executable, "-m", "torch_utils.ops.native"], cwd=ROOT, stdout=sys.stderr)
    if done.returncode == 0:
        return [Verdict(OK, "CUDA operators", "built and checked")]
    return [Verdict(WARN, "CUDA operators", "they cannot be built, see above", "training works without them")]


def _generation(version: str) -> int:
    return int(re.sub(r"\D.*", "", version) or 0)
