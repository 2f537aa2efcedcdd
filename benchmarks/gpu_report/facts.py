"""The facts of a report: GPU, driver, versions, commit, date."""

import platform
import shutil
import subprocess
import time

from benchmarks.gpu_report.child import ROOT
from dnnlib.dataclass_values import require
from dnnlib.parallel import available_cpus
from torch_utils.doctor import torch_facts
from torch_utils.doctor.checks import ask_driver
from torch_utils.doctor.torch_facts import TorchFacts


def ask_torch(device: str) -> TorchFacts:
    """Return what PyTorch sees, from a separate process; ValueError if a GPU is asked for and there is none."""
    facts = torch_facts.ask()
    require(
        device == "cpu" or bool(facts.gpus),
        f"PyTorch sees no GPU ({facts.error or facts.complaint or 'none is there'}): look at `python -m torch_utils.doctor`, "
        f"or try this report with --device=cpu --quick",
    )
    return facts


def gather(device: str, facts: TorchFacts, command: str) -> dict[str, str]:
    """Return the facts, by what they are called in the report."""
    gpus = ", ".join(f"{gpu.name} ({gpu.total_bytes / 2**30:.0f} GiB)" for gpu in facts.gpus)
    driver = ask_driver(shutil.which)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": command,
        "commit": commit(),
        "device": gpus if device == "cuda" else "CPU",
        "driver": driver.version or "none",
        "torch": facts.version or facts.error,
        "CUDA": facts.cuda or "none",
        "torchvision": facts.torchvision or facts.torchvision_error,
        "Python": platform.python_version(),
        "system": platform.platform(),
        "processors": str(available_cpus()),
    }


def commit() -> str:
    """Return the commit of this program, and whether files differ from it; unknown where git or its folder is missing."""
    head = git("rev-parse", "HEAD")
    if not head:
        return "unknown"
    return head[:12] + (", with changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def git(*arguments: str) -> str:
    """Return the output of a git command in this project; "" if it fails."""
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
