"""`python -m torch_utils.doctor`: a verdict a line on everything that training needs, each with its remedy."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - before anything that an older Python cannot read
    sys.exit(
        f"FAIL Python: {sys.version_info[0]}.{sys.version_info[1]} is too old\n     -> install Python 3.11 or newer"
    )

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import sysconfig
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from dnnlib.parallel import available_cpus
from torch_utils.doctor import gpu, machine, packages, places, torch_facts
from torch_utils.doctor.torch_facts import ROOT
from torch_utils.doctor.verdict import FAIL, OK, WARN, Verdict, first_line, guarded

_LIMIT_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def main() -> int:
    """Print all verdicts; return 1 if one of them makes training impossible, else 0."""
    options = parser().parse_args()
    found = []
    for verdict in verdicts(options.path, options.build):
        found.append(verdict)
        if not options.json:
            print(verdict, flush=True)
    if options.json:
        print(json.dumps([vars(verdict) for verdict in found], indent=2))
    else:
        print(summary(found))
    return int(any(verdict.level == FAIL for verdict in found))


def parser() -> argparse.ArgumentParser:
    """Return the command line; argparse, because click may be what is missing."""
    result = argparse.ArgumentParser(prog="python -m torch_utils.doctor", description="Say what training lacks here.")
    result.add_argument("--path", metavar="DIR", action="append", default=[], help="also look at this folder's disk")
    result.add_argument("--build", action="store_true", help="build and check the CUDA operators")
    result.add_argument("--json", action="store_true", help="print JSON")
    return result


def verdicts(paths: list[str], build: bool = False) -> Iterator[Verdict]:
    """Yield what all checks find here, the quick ones first."""
    requirements, constraints = read(ROOT / "requirements.txt"), read(ROOT / "constraints.txt")
    kernel = platform.release()
    is_wsl = places.wsl_version(kernel) > 0
    yield from guarded("Python", lambda: packages.check_python(sys.version_info[:3], sys.platform))
    yield from guarded("packages", lambda: packages.check_packages(requirements, constraints, version_of, problem_of))
    driver = gpu.ask_driver(shutil.which)
    facts = torch_facts.ask()
    is_hidden = not facts.gpus and has_linux_driver()
    yield from guarded("PyTorch", lambda: packages.check_pytorch(facts, requirements, constraints))
    yield from guarded("WSL", lambda: places.check_wsl(kernel, exists("/dev/dxg"), is_hidden))
    yield from guarded("NVIDIA driver", lambda: gpu.check_driver(driver, facts, is_wsl))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    yield from guarded("GPU", lambda: gpu.check_gpus(facts, driver, visible, is_wsl))
    yield from guarded(
        "torch.compile", lambda: gpu.check_compile(facts, shutil.which, os.environ, has_python_headers())
    )
    yield from guarded("CUDA operators", lambda: gpu.build_ops() if build else gpu.check_ops(facts))
    threads = os.environ.get("OMP_NUM_THREADS")
    yield from guarded("CPU", lambda: machine.check_cpu(available_cpus(), threads, bool(facts.gpus)))
    yield from guarded("memory", lambda: machine.check_memory(*memory(), is_wsl))
    yield from guarded("shared memory", lambda: machine.check_shared_memory(shared_memory()))
    yield from guarded("open files", lambda: machine.check_open_files(open_files()))
    for path in dict.fromkeys([".", *paths]):
        yield from guarded("disk", partial(check_folder, path, kernel))


def summary(found: list[Verdict]) -> str:
    """Return the last line."""
    failures = [verdict.subject for verdict in found if verdict.level == FAIL]
    if failures:
        return f"Training is not possible yet: {', '.join(failures)}."
    warnings = sum(verdict.level == WARN for verdict in found)
    has_gpu = any(verdict.level == OK and verdict.subject.startswith("GPU ") for verdict in found)
    where = "on the GPU" if has_gpu else "on the CPU"
    return f"Training is possible {where}{f'; {warnings} warnings above' if warnings else ''}. Try: make demo"


def check_folder(path: str, kernel: str) -> list[Verdict]:
    """Check where a folder lies, its space and its speed."""
    folder = places.existing_folder(path)
    free = shutil.disk_usage(folder).free
    found = places.check_place(str(folder.resolve()), kernel, read("/proc/mounts"))
    speeds = places.measure(folder) if free >= places.LITTLE_FREE else (None, None)  # which would fill the disk
    return [*found, *places.check_disk(str(folder), free, *speeds)]


def version_of(package: str) -> str | None:
    """Return the installed version of a package, None where it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def problem_of(module: str) -> str:
    """Return what importing a module says, "" where it goes well."""
    try:
        importlib.import_module(module)
    except Exception as error:
        return f"{type(error).__name__}: {first_line(str(error))}"
    return ""


def memory() -> tuple[int, int]:
    """Return the bytes of memory in all and available, as Linux tells."""
    return machine.memory(read("/proc/meminfo"), [read(path) for path in _LIMIT_FILES])


def shared_memory() -> int | None:
    """Return the bytes that /dev/shm may hold; None where there is none."""
    return shutil.disk_usage("/dev/shm").total if exists("/dev/shm") else None


def open_files() -> int | None:
    """Return how many files this process may have open; None where the system has no such limit."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def has_python_headers() -> bool:
    """Whether C code can be compiled against this Python."""
    return Path(sysconfig.get_path("include"), "Python.h").exists()


def has_linux_driver() -> bool:
    """Whether a CUDA driver was installed by Linux's own packages."""
    return exists("/usr/lib/x86_64-linux-gnu/libcuda.so.1")


def exists(path: str) -> bool:
    """Whether a file is there."""
    return Path(path).exists()


def read(path: str | Path) -> str:
    """Return the text of a file, "" where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
