"""Finds the compilers: nvcc, wherever it is installed, and the C++ compiler of the host."""

import contextlib
import importlib.metadata
import os
import re
import shutil
import site
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

QUERY_TIMEOUT_SEC, TRIAL_TIMEOUT_SEC = 10, 50  # of an nvcc: for each of two questions, and for compiling
NVCC_FLAGS = "-std=c++17 -O3 -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra"
# The runtime is linked in with its names hidden, as PyTorch's own copy may be of another version.
NVCC_LINK_FLAGS = "-cudart static -Xlinker --exclude-libs,ALL"
_NEWER_LIBC = "this system's C library is newer than CUDA"


class OperatorsUnavailable(ValueError):
    """The compiled operators cannot be used; the message is one line with the reason and the remedy."""


@dataclass(frozen=True)
class Nvcc:
    path: Path
    version: tuple[int, int]
    architectures: frozenset[int]  # 75, 90, ...

    def code_for(self, architecture: int) -> int | None:
        """Return the newest architecture it compiles for that this GPU runs: the same generation, not newer."""
        return max((a for a in self.architectures if a // 10 == architecture // 10 and a <= architecture), default=None)


def parse_architectures(text: str) -> list[int]:
    """Return "7.5,9.0" as [75, 90]; ValueError names what is no compute capability."""
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if not re.fullmatch(r"[1-9][0-9]?\.[0-9]", word):
            raise ValueError(f"'{word}' is no compute capability of a GPU; give them as 7.5,9.0")
    return sorted({int(word.replace(".", "")) for word in words})


def present_gpus() -> dict[int, int]:
    """Return the architectures of the GPUs that PyTorch sees and has code for by index, such as {0: 90}."""
    known = tuple(torch.cuda.get_arch_list())
    found = {index: torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())}
    return {index: major * 10 + minor for index, (major, minor) in found.items() if has_code((major, minor), known)}


def has_code(capability: tuple[int, int], architectures: tuple[str, ...]) -> bool:
    """Return whether a PyTorch built for `architectures` (sm_75, compute_120, ...) runs on a GPU of this capability."""
    own = capability[0] * 10 + capability[1]
    for name in architectures:
        kind, _, digits = name.partition("_")
        code = int(re.sub(r"\D", "", digits) or 0)
        if code <= own and (kind == "compute" or code // 10 == capability[0]):
            return True
    return not architectures


def present_architectures() -> list[int]:
    return sorted(set(present_gpus().values()))


def nvcc_places() -> Iterator[tuple[str, Path]]:
    """Yield where nvcc may be as (name of the place, path), the preferred one first."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield f"${variable}", Path(os.environ[variable], "bin", "nvcc")
    if os.environ.get("CONDA_PREFIX"):
        yield "conda", Path(os.environ["CONDA_PREFIX"], "bin", "nvcc")
    if on_path := shutil.which("nvcc"):
        yield "PATH", Path(on_path)
    for packages in dict.fromkeys([Path(torch.__file__).parents[1], *map(Path, site.getsitepackages())]):
        for found in sorted((packages / "nvidia").glob("*/bin/nvcc"), reverse=True):
            yield "pip package", found
    yield "default folder", Path("/usr/local/cuda/bin/nvcc")


def inspect_nvcc(path: Path) -> Nvcc:
    """Return version and architectures of an nvcc; OperatorsUnavailable if it does not run."""
    version = re.search(r"release (\d+)\.(\d+)", _run([str(path), "--version"], QUERY_TIMEOUT_SEC).stdout)
    codes = re.findall(r"sm_(\d+)\b", _run([str(path), "--list-gpu-code"], QUERY_TIMEOUT_SEC).stdout)
    if version is None or not codes:
        raise OperatorsUnavailable(f"{path} does not work: it does not print its version")
    return Nvcc(path, (int(version[1]), int(version[2])), frozenset(map(int, codes)))


def find_nvcc(architectures: list[int]) -> Nvcc:
    """Return the first nvcc that compiles for these architectures; OperatorsUnavailable with what each one lacks."""
    find_host_compiler()  # which nvcc needs
    rejected = []
    tried: set[Path] = set()
    for origin, path in nvcc_places():
        folder = path.parent.resolve()  # not the file's: nvcc looks for its parts beside the link it is called by
        if folder in tried:
            continue
        if path.exists():
            tried.add(folder)
            try:
                nvcc = inspect_nvcc(path)
                _check_nvcc(nvcc, architectures)
                return nvcc
            except OperatorsUnavailable as error:
                rejected.append(str(error))
        elif origin.startswith("$"):
            rejected.append(f"{origin} has no bin/nvcc")
    reasons = "; ".join(dict.fromkeys(rejected)) or "there is no nvcc"
    raise OperatorsUnavailable(f"{reasons}: {_nvcc_remedy(_NEWER_LIBC in reasons)}")


def find_host_compiler() -> str:
    """Return the C++ compiler: $CXX where set, else g++ or what stands in for it."""
    for name in (os.environ.get("CXX"), "g++", "c++", "clang++"):
        if name and (path := shutil.which(name)):
            return path
    raise OperatorsUnavailable("there is no C++ compiler: install g++, or name one in $CXX")


def nvcc_command(nvcc: Nvcc, architectures: list[int]) -> list[str]:
    """Return the command that compiles for these architectures, with the host compiler in $CXX if there is one."""
    lib = nvcc.path.resolve().parents[1] / "lib"  # where nvcc does not look in a toolkit from pip
    host = shutil.which(os.environ.get("CXX", ""))
    command = [str(nvcc.path), *NVCC_FLAGS.split(), "-allow-unsupported-compiler", *(["-ccbin", host] if host else [])]
    command += [f"-L{lib}"] if (lib / "libcudart_static.a").exists() else []
    for code in sorted({code for a in architectures if (code := nvcc.code_for(a))}):
        command += ["-gencode", f"arch=compute_{code},code=sm_{code}"]
    return command


def _check_nvcc(nvcc: Nvcc, architectures: list[int]) -> None:
    """Raise OperatorsUnavailable unless it fits PyTorch and the GPUs, and builds a library of an empty kernel."""
    name = f"{nvcc.path} of CUDA {nvcc.version[0]}.{nvcc.version[1]}"
    supported = torch.version.cuda and int(torch.version.cuda.split(".")[0])  # what the driver surely supports
    if supported and nvcc.version[0] > supported:
        raise OperatorsUnavailable(f"{name} is newer than PyTorch's {torch.version.cuda}")
    if missing := [f"{a // 10}.{a % 10}" for a in architectures if nvcc.code_for(a) is None]:
        raise OperatorsUnavailable(f"{name} does not know GPUs of {', '.join(missing)}")
    command = [*nvcc_command(nvcc, architectures), "-shared", *NVCC_LINK_FLAGS.split(), "trial.cu", "-o", "trial.so"]
    with tempfile.TemporaryDirectory() as folder:  # missing or mixed parts or a host compiler too new fail here
        Path(folder, "trial.cu").write_text("__global__ void trial() {}\n", encoding="utf-8")
        done = _run(command, TRIAL_TIMEOUT_SEC, folder)
    output = done.stderr + done.stdout
    if done.returncode != 0 and "exception specification" in output:  # glibc declares functions that CUDA has too
        raise OperatorsUnavailable(f"{nvcc.path}: {_NEWER_LIBC} {nvcc.version[0]}.{nvcc.version[1]}")
    if done.returncode != 0:
        raise OperatorsUnavailable(f"{nvcc.path} does not compile ({first_error(output)})")


def first_error(text: str) -> str:
    """Return the line of a compiler's output that most likely names the error."""
    lines = text.splitlines()
    found = next((line for line in lines if re.search(r"\b(error|fatal|not found|No such file)\b", line)), None)
    return (found or next((line for line in reversed(lines) if line.strip()), "no message")).strip()[:200]


def _nvcc_remedy(is_libc_newer: bool) -> str:
    if is_libc_newer:
        return "install CUDA 13.2 or newer, which goes with PyTorch for CUDA 13, and set CUDA_HOME to its folder"
    cuda, toolkit = torch.version.cuda or "13", "0"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        toolkit = importlib.metadata.version("cuda-toolkit")  # which PyTorch's wheel depends on
    packages = f"conda install -c conda-forge cuda-nvcc={cuda} cuda-cudart-dev={cuda}"
    if int(toolkit.split(".")[0]) >= 13:  # the packages of CUDA 12 have no nvcc; all parts need the same version
        packages = f"pip install 'cuda-toolkit[nvcc,nvvm,crt]=={toolkit}'"
    return f"`{packages}`, or install the CUDA {cuda} toolkit and set CUDA_HOME to its folder"


def _run(command: list[str], timeout_sec: int, folder: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=timeout_sec
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise OperatorsUnavailable(f"{command[0]} does not work ({type(error).__name__})") from error
