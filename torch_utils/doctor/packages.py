"""Checks of Python and of the packages: there, new enough, and made for each other."""

import re
from collections.abc import Callable

from torch_utils.doctor.torch_facts import TorchFacts
from torch_utils.doctor.verdict import FAIL, OK, WARN, Verdict

INSTALL = "python -m pip install -r requirements.txt -c constraints.txt"
LEAST_PYTHON = (3, 11)  # pyproject.toml says the same
MODULES = {"pillow": "PIL"}  # packages whose module has another name
_TORCHVISION_LEAD = 15  # torch 2.N goes with torchvision 0.(N + 15)


def check_python(version: tuple[int, ...], platform: str) -> list[Verdict]:
    """Check the Python version, major first, and the operating system, as sys.platform calls it."""
    name = ".".join(map(str, version[:3]))
    found = [Verdict(OK, "Python", name)]
    if version[:2] < LEAST_PYTHON:
        least = ".".join(map(str, LEAST_PYTHON))
        remedy = f"install {least} or newer; `conda env create -f environment.yml` brings one along"
        found = [Verdict(FAIL, "Python", f"{name} is too old, {least} is needed", remedy)]
    if platform == "win32":
        found.append(Verdict(WARN, "system", "Windows itself, where nothing was tried", "use WSL: docs/wsl.md"))
    return found


def check_packages(
    requirements: str, constraints: str, version_of: Callable[[str], str | None], problem_of: Callable[[str], str]
) -> list[Verdict]:
    """Check what requirements.txt names beside torch and torchvision.

    Args:
        requirements: The text of requirements.txt.
        constraints: The text of constraints.txt, the tested set.
        version_of: Gives the installed version of a package, None where it is missing.
        problem_of: Gives what its import says of a module, "" where it goes well.
    """
    tested, present, found = parse(constraints), [], []
    for name, least in parse(requirements).items():
        version = version_of(name)
        if name in ("torch", "torchvision"):
            continue
        if version is None:
            found.append(Verdict(FAIL, name, "not installed", INSTALL))
        elif as_numbers(version) < as_numbers(least):
            found.append(Verdict(FAIL, name, f"{version} is too old, {least} is needed", INSTALL))
        elif problem := problem_of(MODULES.get(name, name)):
            found.append(
                Verdict(FAIL, name, f"{version} cannot be imported ({problem})", f"{INSTALL} --force-reinstall")
            )
        else:
            is_tested = as_numbers(version) == as_numbers(tested.get(name, version))
            present.append(f"{name} {version}" + ("" if is_tested else f" (tested: {tested[name]})"))
    return [Verdict(OK, "packages", ", ".join(present)), *found] if present else found


def check_pytorch(facts: TorchFacts, requirements: str, constraints: str) -> list[Verdict]:
    """Check PyTorch and torchvision, and that they were built for each other."""
    if facts.error:
        is_missing = facts.error.startswith("ModuleNotFoundError: No module named 'torch'")
        text = "not installed" if is_missing else f"cannot be imported ({facts.error})"
        return [Verdict(FAIL, "PyTorch", text, INSTALL + ("" if is_missing else " --force-reinstall"))]
    least, tested = parse(requirements), parse(constraints)
    if as_numbers(facts.version) < as_numbers(least["torch"]):
        text = f"{facts.version} is too old, {least['torch']} is needed"
        return [Verdict(FAIL, "PyTorch", text, INSTALL)]
    return [_torch_verdict(facts, tested["torch"]), _torchvision_verdict(facts)]


def _torch_verdict(facts: TorchFacts, tested: str) -> Verdict:
    build = f"built for CUDA {facts.cuda}" if facts.cuda else "a build for the CPU alone"
    note = "" if as_numbers(facts.version) == as_numbers(tested) else f" (tested: {tested})"
    return Verdict(OK, "PyTorch", f"{facts.version}{note}, {build}")


def _torchvision_verdict(facts: TorchFacts) -> Verdict:
    remedy = f"install the pair anew: {INSTALL} --force-reinstall"
    if facts.torchvision_error.startswith("ModuleNotFoundError: No module named 'torchvision'"):
        return Verdict(FAIL, "torchvision", "not installed", INSTALL)
    if facts.torchvision_error:
        text = f"cannot be imported ({facts.torchvision_error}); most often it was built for another PyTorch"
        return Verdict(FAIL, "torchvision", text, remedy)
    expected = matching_torchvision(facts.version)
    if expected and not facts.torchvision.startswith(f"{expected}."):
        text = f"{facts.torchvision} was not built for PyTorch {facts.version}, which goes with {expected}"
        return Verdict(WARN, "torchvision", text, remedy)
    builds = {version.partition("+")[2] for version in (facts.version, facts.torchvision)} - {""}
    if len(builds) > 1:
        text = f"{facts.torchvision} and PyTorch {facts.version} are different builds"
        return Verdict(WARN, "torchvision", text, remedy)
    return Verdict(OK, "torchvision", facts.torchvision)


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
