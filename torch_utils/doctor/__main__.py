"""`python -m torch_utils.doctor`: one verdict per line, each with its remedy."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - before imports that an older Python cannot parse
    sys.exit(f"FAIL Python: {sys.version_info[0]}.{sys.version_info[1]} is too old -> install Python 3.11 or newer")

import argparse
import importlib.metadata
import os
import platform
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from torch_utils.doctor import checks, torch_facts
from torch_utils.doctor.checks import FAIL, OK, WARN, Verdict
from torch_utils.doctor.torch_facts import ROOT

_LIMIT_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def main() -> int:
    """Print all verdicts; return 1 if training is impossible, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m torch_utils.doctor", description="Check what training needs on this machine."
    )
    parser.add_argument("--path", metavar="DIR", action="append", default=[], help="also check the disk of this folder")
    found = []
    for verdict in verdicts(parser.parse_args().path):  # argparse, because click may be what is missing
        print(verdict, flush=True)
        found.append(verdict)
    print(summary(found))
    return int(any(verdict.level == FAIL for verdict in found))


def verdicts(paths: list[str]) -> Iterator[Verdict]:
    """Yield the verdicts of all checks, the quick ones first."""
    requirements = read(ROOT / "requirements.txt")
    is_wsl = "microsoft" in platform.release().lower()
    yield Verdict(OK, "Python", platform.python_version())
    yield from checks.check_packages(requirements, version_of)
    facts = torch_facts.ask()
    yield from checks.check_pytorch(facts, requirements)
    driver, visible = checks.ask_driver(shutil.which), os.environ.get("CUDA_VISIBLE_DEVICES")
    yield from checks.check_gpus(facts, driver, visible, is_wsl)
    yield from checks.check_compiler(facts, shutil.which, Path(sysconfig.get_paths()["include"]))
    yield from checks.check_memory(read("/proc/meminfo"), [read(path) for path in _LIMIT_FILES], is_wsl)
    for path in dict.fromkeys([".", *paths]):
        folder = checks.existing_folder(path)
        yield checks.check_disk(str(folder), shutil.disk_usage(folder).free, is_wsl)


def summary(found: list[Verdict]) -> str:
    if failures := [verdict.subject for verdict in found if verdict.level == FAIL]:
        return f"Training is not possible yet: {', '.join(failures)}."
    warnings = sum(verdict.level == WARN for verdict in found)
    where = "GPU" if any(verdict.level == OK and verdict.subject.startswith("GPU ") for verdict in found) else "CPU"
    return f"Training is possible on the {where}{f'; warnings above: {warnings}' if warnings else ''}. Try: make demo"


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def read(path: str | Path) -> str:
    """Return the text of a file, "" where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
