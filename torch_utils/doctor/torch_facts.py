"""Facts about the installed PyTorch, gathered by a process of its own: an import may fail, hang or crash."""

import contextlib
import dataclasses
import io
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
_MARK = "facts: "  # before the line that has them


@dataclass(frozen=True)
class Gpu:
    """A GPU that PyTorch sees."""

    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int]  # 7, 5 of a T4


@dataclass(frozen=True)
class OpsFacts:
    """State of the compiled operators for the GPUs present."""

    mode: str = "auto"  # auto, native or reference
    library: str = ""  # where it lies, built; "" = it is not
    nvcc: str = ""  # what would build it
    problem: str = ""  # why nothing can; "" = something can


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
    has_triton: bool = False
    ops: OpsFacts = OpsFacts()


def ask() -> TorchFacts:
    """Return the facts, from another process."""
    command = [sys.executable, "-m", "torch_utils.doctor.torch_facts"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, encoding="utf-8", errors="replace", timeout=_TIMEOUT_SEC
        )
    except subprocess.TimeoutExpired:
        return TorchFacts(error=f"importing it took more than {_TIMEOUT_SEC} seconds")
    except OSError as error:
        return TorchFacts(error=_message(error))
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        return TorchFacts(error=f"importing it ended Python with code {done.returncode} ({first_line(last)})")
    return from_output(done.stdout)


def from_output(output: str) -> TorchFacts:
    """Return facts from what the other process printed, before and after which a library may print too."""
    line = next((line for line in output.splitlines() if line.startswith(_MARK)), "")
    try:
        return from_json(line.removeprefix(_MARK))
    except ValueError as error:
        return TorchFacts(error=f"what it is could not be found out ({first_line(str(error))})")


def from_json(text: str) -> TorchFacts:
    """Return facts from what `to_json` made of them."""
    return build(TorchFacts, json.loads(text), "facts")


def to_json(facts: TorchFacts) -> str:
    """Return facts as one line."""
    return json.dumps(dataclasses.asdict(facts))


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
    import importlib.util

    import torch

    gpus = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        gpus.append(Gpu(torch.cuda.get_device_name(index), total, free, torch.cuda.get_device_capability(index)))
    return {
        "gpus": tuple(gpus),
        "architectures": tuple(torch.cuda.get_arch_list()),
        "has_triton": importlib.util.find_spec("triton") is not None,
        "ops": _ops_facts(),
    }


def _ops_facts() -> OpsFacts:
    """What the operators' own doctor would find, nothing being built."""
    from torch_utils.ops import native
    from torch_utils.ops.native import toolchain
    from torch_utils.ops.native.build import library_path
    from torch_utils.ops.native.loading import target_for

    try:
        library = library_path(target_for("cuda"))
        if native.mode() == "reference" or library.exists():
            return OpsFacts(native.mode(), library=str(library) if library.exists() else "")
        toolchain.find_host_compiler()
        toolchain.find_ninja()
        return OpsFacts(native.mode(), nvcc=str(toolchain.find_nvcc(toolchain.present_architectures()).path))
    except (RuntimeError, ValueError, OSError) as error:
        return OpsFacts(problem=first_line(str(error)))


def _message(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(str(error))}"


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()):  # whatever an import prints
        found = gather()
    print(f"\n{_MARK}{to_json(found)}", flush=True)
