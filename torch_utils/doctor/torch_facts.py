"""Facts about the installed PyTorch, gathered by a process of its own: an import may fail, hang or crash."""

import dataclasses
import json
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnnlib.dataclass_values import build
from torch_utils.doctor.verdict import first_line

ROOT = Path(__file__).parents[2]
_TIMEOUT_SEC = 180


@dataclass(frozen=True)
class Gpu:
    """A GPU that PyTorch sees."""

    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int]  # 7, 5 of a T4


@dataclass(frozen=True)
class TorchFacts:
    """What PyTorch is and sees."""

    error: str = ""  # why it cannot be imported; "" = it can
    version: str = ""
    cuda: str | None = None  # the CUDA it is built with; None = a build for the CPU alone
    torchvision: str = ""
    torchvision_error: str = ""
    complaint: str = ""  # what it said when it looked for GPUs
    architectures: tuple[str, ...] = ()  # sm_75, ...: what it has kernels for
    gpus: tuple[Gpu, ...] = ()
    operators: str = ""  # state of the compiled operators
    operators_problem: str = ""  # why they cannot be built; "" = they can


def ask() -> TorchFacts:
    """Return the facts, from another process, which prints them in a line of JSON among what libraries print."""
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
    facts["complaint"] = first_line(str(caught[0].message)) if caught else ""
    if has_gpu:
        try:
            facts |= _gpu_facts()
        except Exception as error:  # a GPU in exclusive mode, or one that fell off the bus
            facts["complaint"] = _message(error)
    return TorchFacts(**facts)


def _gpu_facts() -> dict[str, Any]:
    import torch

    gpus = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        gpus.append(Gpu(torch.cuda.get_device_name(index), total, free, torch.cuda.get_device_capability(index)))
    return {"gpus": tuple(gpus), "architectures": tuple(torch.cuda.get_arch_list()), **_operators_facts()}


def _operators_facts() -> dict[str, str]:
    """Whether the compiled operators are built or could be; nothing is built here."""
    from torch_utils.ops.native import toolchain
    from torch_utils.ops.native.build import library_path
    from torch_utils.ops.native.loading import target_for

    try:
        library = library_path(target_for("cuda"))
        if library.exists():
            return {"operators": f"built, {library}"}
        toolchain.find_host_compiler()
        toolchain.find_ninja()
        nvcc = toolchain.find_nvcc(toolchain.present_architectures()).path
        return {"operators": f"the first training builds them with {nvcc}, in about a minute"}
    except (RuntimeError, ValueError, OSError) as error:
        return {"operators_problem": first_line(str(error))}


def _message(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(str(error))}"


if __name__ == "__main__":
    print(f"\n{json.dumps(dataclasses.asdict(gather()))}", flush=True)
