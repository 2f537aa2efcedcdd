"""Checks of packages: there, new enough, and made for each other."""

import re
from collections.abc import Callable

from torch_utils.doctor.torch_facts import TorchFacts
from torch_utils.doctor.verdict import FAIL, OK, WARN, Verdict

INSTALL = "python -m pip install -r requirements.txt -c constraints.txt"
_TORCHVISION_LEAD = 15  # torch 2.N goes with torchvision 0.(N + 15)


def check_packages(requirements: str, constraints: str, version_of: Callable[[str], str | None]) -> list[Verdict]:
    """Check what requirements.txt names beside torch and torchvision.

    Args:
        requirements: The text of requirements.txt.
        constraints: The text of constraints.txt, the tested set.
        version_of: Returns the installed version of a package, None where it is missing.
    """
    tested, present, found = parse(constraints), [], []
    for name, least in parse(requirements).items():
        if name in ("torch", "torchvision"):
            continue
        version = version_of(name)
        if version is None:
            found.append(Verdict(FAIL, name, "not installed", INSTALL))
        elif as_numbers(version) < as_numbers(least):
            found.append(Verdict(FAIL, name, f"{version} is too old, {least} is needed", INSTALL))
        else:
            present.append(f"{name} {version}{_untested(version, tested.get(name, version))}")
    return [Verdict(OK, "packages", ", ".join(present)), *found] if present else found


def check_pytorch(facts: TorchFacts, requirements: str, constraints: str) -> list[Verdict]:
    """Check PyTorch and torchvision, and that they were built for each other."""
    if facts.error:
        return [_broken("PyTorch", facts.error)]
    least, tested = parse(requirements)["torch"], parse(constraints)["torch"]
    if as_numbers(facts.version) < as_numbers(least):
        return [Verdict(FAIL, "PyTorch", f"{facts.version} is too old, {least} is needed", INSTALL)]
    build = f"built for CUDA {facts.cuda}" if facts.cuda else "a build for the CPU alone"
    found = Verdict(OK, "PyTorch", f"{facts.version}{_untested(facts.version, tested)}, {build}")
    if facts.torchvision_error:
        return [found, _broken("torchvision", facts.torchvision_error)]
    expected = matching_torchvision(facts.version)
    builds = {version.partition("+")[2] for version in (facts.version, facts.torchvision)} - {""}
    if len(builds) > 1 or (expected and not facts.torchvision.startswith(f"{expected}.")):
        text = f"{facts.torchvision} was not built for PyTorch {facts.version}"
        return [found, Verdict(WARN, "torchvision", text, f"install the pair anew: {INSTALL} --force-reinstall")]
    return [found, Verdict(OK, "torchvision", facts.torchvision)]


def _broken(package: str, error: str) -> Verdict:
    """The verdict on a package that cannot be imported."""
    if error.startswith(f"ModuleNotFoundError: No module named '{package.lower().removeprefix('py')}'"):
        return Verdict(FAIL, package, "not installed", INSTALL)
    return Verdict(FAIL, package, f"cannot be imported ({error})", f"{INSTALL} --force-reinstall")


def _untested(version: str, tested: str) -> str:
    return "" if as_numbers(version) == as_numbers(tested) else f" (tested: {tested})"


def matching_torchvision(torch_version: str) -> str | None:
    """Return the "0.26" that was made for a torch "2.11.0"; None where the rule does not hold."""
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
