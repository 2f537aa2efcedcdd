"""Facts of a run for its report: networks, images, machine, versions, and how the run ended."""

import contextlib
import json
import platform
import re
import time
import tomllib
from pathlib import Path
from typing import Any

import torch

from dnnlib.files import atomic_write
from training.data.dataset import ImageDataset
from training.run.names import FACTS_FILE
from training.state import TrainState


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


def write_facts(run_dir: Path, facts: dict[str, Any], status: str, reason: str = "") -> None:
    """Write run_facts.json; the status is running, done, stopped or failed. Raises OSError."""
    whole = facts | {"status": status, "reason": reason, "timestamp": time.time()}
    with atomic_write(run_dir / FACTS_FILE, "w") as file:
        file.write(json.dumps(whole, indent=2) + "\n")


def device_name(device: torch.device) -> str:
    """Return the model of a GPU, or of the CPU."""
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
