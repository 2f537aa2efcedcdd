"""Facts about the installed PyTorch, gathered by a separate process, because its import may fail, hang or crash."""

import dataclasses
import json
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnnlib.dataclass_values import build
from dnnlib.text import first_line

ROOT = Path(__file__).parents[2]
_TIMEOUT_SEC = 180


@dataclass(frozen=True)
class Gpu:
    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int]  # (7, 5) for a T4
    is_supported: bool  # PyTorch has kernels for it


@dataclass(frozen=True)
class TorchFacts:
    """PyTorch's version and the GPUs it sees."""

    error: str = ""  # why it cannot be imported; "" = it can
    version: str = ""
    cuda: str | None = None  # the version it is built with; None = built for the CPU only
    torchvision: str = ""
    torchvision_error: str = ""
    complaint: str = ""  # its warning when it looked for GPUs
    gpus: tuple[Gpu, ...] = ()


def ask() -> TorchFacts:
    """Return the facts from another process, which prints them as one line of JSON among the output of libraries."""
    command = [sys.executable, "-m", "torch_utils.doctor.torch_facts"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, encoding="utf-8", errors="replace", timeout=_TIMEOUT_SEC
        )
    except subprocess.TimeoutExpired:
        return TorchFacts(error=f"importing it took more than {_TIMEOUT_SEC} seconds")
    facts = [line for line in done.stdout.splitlines() if line.startswith('{"error":')]
    if done.returncode != 0 or not facts:
        last = ["it printed nothing", *done.stderr.strip().splitlines()][-1]
        return TorchFacts(error=f"importing it ended Python with code {done.returncode} ({first_line(last)})")
    return build(TorchFacts, json.loads(facts[-1]), "facts")


def gather() -> TorchFacts:
    """Return the facts, by importing PyTorch here."""
    try:
        import torch
    except Exception as error:
        return TorchFacts(error=_message(error))
    facts: dict[str, Any] = {"version": torch.__version__, "cuda": torch.version.cuda}
    try:
        import torchvision

        facts["torchvision"] = torchvision.__version__
    except Exception as error:
        facts["torchvision_error"] = _message(error)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        has_gpu = torch.cuda.is_available()
    facts["complaint"] = first_line(caught[0].message) if caught else ""
    if has_gpu:
        try:
            facts["gpus"] = _gpus()
        except Exception as error:  # a GPU in exclusive mode, or one that fell off the bus
            facts["complaint"] = _message(error)
    return TorchFacts(**facts)


def _gpus() -> tuple[Gpu, ...]:
    import torch

    from torch_utils.ops.native.toolchain import present_gpus

    supported, gpus = present_gpus(), []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        capability = torch.cuda.get_device_capability(index)
        gpus.append(Gpu(torch.cuda.get_device_name(index), total, free, capability, index in supported))
    return tuple(gpus)


def _message(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


if __name__ == "__main__":
    print(f"\n{json.dumps(dataclasses.asdict(gather()))}", flush=True)
