"""Compiles the operators once and keeps the library in the cache folder.

The library has a plain C interface: it includes no header of PyTorch or Python, compiles in about a minute and outlives
their upgrades. A build may be killed at any time (docs/ops.md).
"""

import contextlib
import hashlib
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from dnnlib.files import atomic_folder
from dnnlib.paths import user_path
from torch_utils.ops.native.toolchain import (
    NVCC_FLAGS,
    NVCC_LINK_FLAGS,
    OperatorsUnavailable,
    find_host_compiler,
    find_nvcc,
    first_error,
    nvcc_command,
)

SOURCE_DIR = Path(__file__).parents[1] / "csrc"
UNITS = ("bias_act", "upfirdn2d")
LIBRARY_NAME = "libstyleformer_ops.so"
_CXX_FLAGS = "-std=c++17 -O2 -ffp-contract=off -fPIC -fvisibility=hidden -Wall -Wextra"
COMPILE_TIMEOUT_SEC, LINK_TIMEOUT_SEC = 900, 120  # with all else, less than other processes wait in a collective


@dataclass(frozen=True)
class Target:
    """What to build for: GPUs of these architectures (75, 90, ...), or the CPU if empty."""

    architectures: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """A folder name that depends on everything the library depends on."""
        parts = [platform.machine(), *platform.libc_ver()]
        if self.architectures:
            parts += [f"cuda{torch.version.cuda}", *(f"sm{a}" for a in self.architectures)]
        return "-".join([*filter(None, parts), _sources_hash()])


def cache_folder() -> Path:
    """Return $STYLEFORMER_CACHE_DIR/ops, or ~/.cache/styleformer/ops."""
    return user_path(os.environ.get("STYLEFORMER_CACHE_DIR") or "~/.cache/styleformer").absolute() / "ops"


def library_path(target: Target) -> Path:
    return cache_folder() / target.name / LIBRARY_NAME


def log_path(target: Target) -> Path:
    """Return the file with the output of the last build of a target."""
    return cache_folder() / f"{target.name}.log"


def build(target: Target) -> Path:
    """Return the library of a target, built unless it is in the cache; concurrent processes wait for the first one.

    Raises OperatorsUnavailable: no compiler, a failed build or a cache folder that cannot be written.
    """
    library = library_path(target)
    if library.exists():
        return library
    if sys.platform == "win32":
        raise OperatorsUnavailable("they are built on Linux only: use WSL")
    try:
        library.parent.parent.mkdir(parents=True, exist_ok=True)
        with _locked(library.parent.with_name(f"{target.name}.lock")):
            if not library.exists():
                with atomic_folder(library.parent) as folder:
                    _compile(target, folder)
    except OSError as error:
        raise OperatorsUnavailable(
            f"{cache_folder()} cannot be written ({error.strerror or error}): set STYLEFORMER_CACHE_DIR to another folder"
        ) from error
    return library


def _compile(target: Target, folder: Path) -> None:
    log_file = log_path(target)
    if target.architectures:
        architectures = list(target.architectures)
        compiler, link_flags = nvcc_command(find_nvcc(architectures), architectures), NVCC_LINK_FLAGS.split()
        compile_flags = ["-Xptxas", "-v"]
        print(f"Operators: compiling for this kind of GPU, once, in about a minute; output in {log_file}", flush=True)
    else:
        compiler, link_flags = [find_host_compiler(), *_CXX_FLAGS.split()], []
        compile_flags = ["-x", "c++"]
    compiler_calls = [
        [*compiler, *compile_flags, "-c", str(SOURCE_DIR / f"{unit}.cu"), "-o", str(folder / f"{unit}.o")]
        for unit in UNITS
    ]
    objects = [call[-1] for call in compiler_calls]
    with open(log_file, "w", encoding="utf-8") as log:
        _run(compiler_calls, log, COMPILE_TIMEOUT_SEC)
        link_call = [*compiler, "-shared", *link_flags, *objects, "-o", str(folder / LIBRARY_NAME)]
        _run([link_call], log, LINK_TIMEOUT_SEC)
    for path in objects:
        os.unlink(path)


def _run(commands: list[list[str]], log: IO[str], timeout_sec: int) -> None:
    """Run commands in parallel; OperatorsUnavailable if one fails."""

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout_sec
        )

    with ThreadPoolExecutor() as pool:
        try:
            finished = list(pool.map(run, commands))
        except subprocess.TimeoutExpired:
            raise OperatorsUnavailable(f"compiling took more than {timeout_sec // 60} minutes") from None
    for done in finished:
        log.write(f"{shlex.join(done.args)}\n{done.stdout}")
    if failed := next((done for done in finished if done.returncode != 0), None):
        raise OperatorsUnavailable(f"compiling failed ({first_error(failed.stdout)}): see {log.name}")


def _sources_hash() -> str:
    digest = hashlib.sha256((_CXX_FLAGS + NVCC_FLAGS + NVCC_LINK_FLAGS).encode())
    for path in sorted(SOURCE_DIR.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; on a file system without locks, two processes may build at the same time."""
    import fcntl  # Windows has none

    with open(path, "a", encoding="utf-8") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
