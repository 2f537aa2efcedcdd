"""Compiles the native operators once and keeps the library in the cache folder.

The library has a plain C interface: it needs no headers of PyTorch or Python, compiles in about a minute and outlives their
upgrades. It is built in a temporary folder that takes its name when complete, under a lock that the operating system
releases with the process that holds it: killing a build at any moment leaves nothing that a later one would trip over.
"""

import contextlib
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from dnnlib.files import atomic_folder
from torch_utils.distributed import print0
from torch_utils.ops.native.toolchain import (
    OperatorsUnavailable,
    extra_flags,
    find_host_compiler,
    find_ninja,
    find_nvcc,
    first_error,
)

if sys.platform != "win32":
    import fcntl

SOURCE_DIR = Path(__file__).parents[1] / "csrc"
UNITS = ("bias_act", "upfirdn2d")
LIBRARY_NAME = "libstyleformer_ops.so"
_CXX_FLAGS = "-std=c++17 -O2 -ffp-contract=off -fPIC -fvisibility=hidden -Wall -Wextra"
_NVCC_FLAGS = "-std=c++17 -O3 -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra"
TIMEOUT_SEC = 1200  # with that of the check, less than processes wait for one that is late to join them


@dataclass(frozen=True)
class Target:
    """What to build for: GPUs of these architectures, or the CPU where there are none."""

    architectures: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """A folder name that differs wherever the library does."""
        return f"{self._machine}-{_sources_hash()}"

    @property
    def _machine(self) -> str:
        parts = [platform.machine(), *platform.libc_ver()]
        if self.architectures:
            parts += [f"cuda{torch.version.cuda}", *(f"sm{a}" for a in self.architectures)]
        return "-".join(part for part in parts if part)


def cache_folder() -> Path:
    """Return $STYLEFORMER_CACHE_DIR/ops, or ~/.cache/styleformer/ops."""
    return Path(os.environ.get("STYLEFORMER_CACHE_DIR") or "~/.cache/styleformer").expanduser() / "ops"


def library_path(target: Target) -> Path:
    """Return where the library of a target lies once it is built."""
    return cache_folder() / target.name / LIBRARY_NAME


def log_path(target: Target) -> Path:
    """Return the file with the output of the last build of a target."""
    return cache_folder() / f"{target.name}.log"


def build(target: Target) -> Path:
    """Return the library of a target, built unless it is in the cache.

    Several processes may ask at once: one builds, the others wait for it.

    Raises:
        OperatorsUnavailable: No compiler, a failed build or a cache folder that cannot be written.
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
            f"{cache_folder()} cannot be written ({error.strerror or error}): "
            "set STYLEFORMER_CACHE_DIR to a folder of yours"
        ) from error
    return library


def forget(target: Target) -> None:
    """Remove the library of a target from the cache, as far as that is allowed."""
    shutil.rmtree(library_path(target).parent, ignore_errors=True)


def _compile(target: Target, folder: Path) -> None:
    text = _cuda_rules(list(target.architectures)) if target.architectures else _cpu_rules()
    sources = re.sub(r"[$ :]", r"$\g<0>", str(SOURCE_DIR))
    text += "".join(f"build {unit}.o: compile {sources}/{unit}.cu\n" for unit in UNITS)
    text += f"build {LIBRARY_NAME}: link " + " ".join(f"{unit}.o" for unit in UNITS) + "\n"
    (folder / "build.ninja").write_text(text, encoding="utf-8")
    command = [*find_ninja(), "-v", "-C", str(folder)]
    if jobs := os.environ.get("MAX_JOBS"):
        command += ["-j", jobs]
    log = log_path(target)
    if target.architectures:
        print0(f"Operators: compiling them for this kind of GPU, once, in about a minute; output in {log}")
    with open(log, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        try:
            code = subprocess.run(command, stdout=file, stderr=file, timeout=TIMEOUT_SEC).returncode
        except subprocess.TimeoutExpired:
            raise OperatorsUnavailable(f"compiling took more than {TIMEOUT_SEC // 60} minutes: see {log}") from None
    if code != 0:
        message = first_error(log.read_text(encoding="utf-8", errors="replace"))
        raise OperatorsUnavailable(f"compiling failed ({message}): see {log}")
    for unit in UNITS:
        (folder / f"{unit}.o").unlink()


def _cuda_rules(architectures: list[int]) -> str:
    nvcc = find_nvcc(architectures)
    codes = sorted({code for a in architectures if (code := nvcc.code_for(a))})
    compiler = [str(nvcc.path), *_NVCC_FLAGS.split(), *extra_flags(nvcc), "-Xptxas", "-v"]
    for code in codes:
        compiler += ["-gencode", f"arch=compute_{code},code=sm_{code}"]
    # The runtime is linked in, its names hidden: PyTorch's own copy may be of another version.
    link = ["-shared", "-cudart", "static", "-Xlinker", "--exclude-libs,ALL"]
    return _rules(compiler, [], link)


def _cpu_rules() -> str:
    return _rules([find_host_compiler(), *_CXX_FLAGS.split()], ["-x", "c++"], ["-shared"])


def _rules(compiler: list[str], language: list[str], link: list[str]) -> str:
    compiling, linking = (shlex.join(command).replace("$", "$$") for command in (compiler + language, compiler + link))
    return f"rule compile\n  command = {compiling} -c $in -o $out\nrule link\n  command = {linking} $in -o $out\n"


def _sources_hash() -> str:
    digest = hashlib.sha256((_CXX_FLAGS + _NVCC_FLAGS).encode())
    for path in sorted(SOURCE_DIR.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; where the file system has none, two builds at once cost only time."""
    with open(path, "a", encoding="utf-8") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
