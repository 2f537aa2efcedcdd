"""Checks of packages: installed, new enough, and built for each other."""

import re
from collections.abc import Callable

from torch_utils.doctor.torch_facts import TorchFacts
from torch_utils.doctor.verdict import FAIL, OK, WARN, Verdict

INSTALL = "python -m pip install -r requirements.txt -c constraints.txt"
REINSTALL = f"{INSTALL} --force-reinstall"
_TORCHVISION_LEAD = 15  # torch 2.N goes with torchvision 0.(N + 15)


def check_packages(requirements: str, version_of: Callable[[str], str | None]) -> list[Verdict]:
    """Check the packages of requirements.txt except torch and torchvision."""
    present, found = [], []
    for name, minimum in parse(requirements).items():
        if name in ("torch", "torchvision"):
            continue
        version = version_of(name)
        if version is None:
            found.append(Verdict(FAIL, name, "not installed", INSTALL))
        elif as_numbers(version) < as_numbers(minimum):
            found.append(Verdict(FAIL, name, f"{version} is too old, {minimum} is needed", INSTALL))
        else:
            present.append(f"{name} {version}")
    return [Verdict(OK, "packages", ", ".join(present)), *found] if present else found


def check_pytorch(facts: TorchFacts, requirements: str) -> list[Verdict]:
    """Check PyTorch and torchvision, and that they were built for each other."""
    if facts.error:
        return [Verdict(FAIL, "PyTorch", f"cannot be imported ({facts.error})", REINSTALL)]
    minimum = parse(requirements)["torch"]
    if as_numbers(facts.version) < as_numbers(minimum):
        return [Verdict(FAIL, "PyTorch", f"{facts.version} is too old, {minimum} is needed", INSTALL)]
    build = f"built for CUDA {facts.cuda}" if facts.cuda else "built for the CPU only"
    found = Verdict(OK, "PyTorch", f"{facts.version}, {build}")
    if facts.torchvision_error:
        return [found, Verdict(FAIL, "torchvision", f"cannot be imported ({facts.torchvision_error})", REINSTALL)]
    expected = matching_torchvision(facts.version)
    builds = {version.partition("+")[2] for version in (facts.version, facts.torchvision)} - {""}
    if len(builds) > 1 or (expected and not facts.torchvision.startswith(f"{expected}.")):
        text = f"{facts.torchvision} was not built for PyTorch {facts.version}"
        return [found, Verdict(WARN, "torchvision", text, REINSTALL)]
    return [found, Verdict(OK, "torchvision", facts.torchvision)]


def matching_torchvision(torch_version: str) -> str | None:
    """Return the torchvision release for a torch release, "0.26" for "2.11.0"; None if the rule does not hold."""
    major, minor = as_numbers(torch_version)[:2]
    return f"0.{minor + _TORCHVISION_LEAD}" if major == 2 else None


def parse(text: str) -> dict[str, str]:
    """Return package -> version of the lines name>=version or name==version."""
    lines = (line.strip() for line in text.splitlines())
    return dict(re.split(r"[>=]=", line, maxsplit=1) for line in lines if line and not line.startswith("#"))


def as_numbers(version: str) -> tuple[int, ...]:
    """Return "2.11.0+cu130" as (2, 11, 0), "2.11" as well."""
    numbers = [int(part) for part in re.findall(r"\d+", re.split(r"[^0-9.]", version, maxsplit=1)[0])]
    return (*numbers, 0, 0, 0)[: max(3, len(numbers))]
