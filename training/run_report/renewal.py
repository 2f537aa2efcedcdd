"""Updates run_facts.json and report.html during a run; an error there does not end the run."""

import contextlib
import functools
import json
import platform
import re
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dnnlib.files import atomic_write
from training.data.dataset import ImageDataset
from training.run.names import FACTS_FILE, REPORT_FILE
from training.run_report.page import make_page
from training.state import TrainState


class RunReport:
    """The report of a run in progress, written by its first process."""

    def __init__(
        self, run_dir: Path, facts: Callable[[], dict[str, Any]], log: Callable[[str], None], is_on: bool = True
    ) -> None:
        self.run_dir, self.log, self.is_on = run_dir, log, is_on
        self.facts = functools.cache(facts)

    def write(self, status: str = "running", reason: str = "") -> None:
        """Write the report, or a warning; the status is running, done, stopped or failed."""
        if not self.is_on:
            return
        try:
            facts = self.facts() | {"status": status, "reason": reason, "timestamp": time.time()}
            with atomic_write(self.run_dir / FACTS_FILE, "w") as file:
                file.write(json.dumps(facts, indent=2) + "\n")
            write_report(self.run_dir)
        except Exception as error:  # never end the run for its report
            effect = ", training continues" if status == "running" else ""
            self.log(f"Warning: {REPORT_FILE} was not updated{effect}: {error}")


def write_report(run_dir: Path) -> None:
    """Write report.html of a run folder; raises OSError."""
    page = make_page(run_dir)
    with atomic_write(run_dir / REPORT_FILE, "w") as file:
        file.write(page)


def gather(state: TrainState, dataset: ImageDataset, world_size: int, command: str) -> dict[str, Any]:
    """Return the facts of a run as plain values; `command` resumes it."""
    spec = dataset.spec
    return {
        "command": command,
        "device": device_name(state.device),
        "processes": world_size,
        "versions": {
            "Styleformer": program_version(),
            "Python": platform.python_version(),
            "PyTorch": str(torch.__version__),
        },
        "parameters": {
            name: sum(p.numel() for p in network.parameters()) for name, network in (("G", state.G), ("D", state.D))
        },
        "data": {
            "name": dataset.path.name,
            "pictures": len(dataset),
            "files": dataset.num_files,
            "width": spec.width,
            "height": spec.height,
            "channels": spec.channels,
            "classes": spec.label_dim,
            "class_names": list(spec.class_names),
        },
    }


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = None
    with contextlib.suppress(OSError):
        model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return f"CPU ({model[1] if model else platform.machine()})"


def program_version() -> str:
    """Return the version in pyproject.toml; "unknown" without that file."""
    try:
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
        return str(project["project"]["version"])
    except (OSError, KeyError, ValueError):
        return "unknown"
