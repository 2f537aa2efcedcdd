"""Reads and writes .safetensors through the package of that name, which nothing else needs."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from dnnlib.files import atomic_write
from training.checkpoint.files import CheckpointError


def load_library(path: Path) -> ModuleType:
    """The package; raises CheckpointError, which names the file, where it is not installed."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise CheckpointError(f"{path}: .safetensors needs one more package: pip install safetensors") from error
    return safetensors


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors by name and texts by name. Raises CheckpointError, OSError."""
    library = load_library(path)
    own = {name: x.detach().cpu().clone(memory_format=torch.contiguous_format) for name, x in tensors.items()}
    with atomic_write(path) as file:
        file.write(library.torch.save(own, dict(metadata)))


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts by name; raises CheckpointError for a file that is damaged or of another kind."""
    library = load_library(path)
    try:
        with library.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except library.SafetensorError as error:
        raise CheckpointError(f"{path}: not an exported network, or damaged ({error})") from error
