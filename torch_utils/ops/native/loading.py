"""Loads the compiled operators, and compares them with the reference before they are used on a new kind of GPU."""

import contextlib
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import torch

from dnnlib.files import atomic_write
from torch_utils import distributed
from torch_utils.ops.native import build, library
from torch_utils.ops.native.toolchain import OperatorsUnavailable, present_architectures, present_gpus

_ROOT = Path(__file__).parents[3]
CHECK_TIMEOUT_SEC = 300


def target_for(device_type: str) -> build.Target:
    """Return what to build for cpu, or for the GPUs present; OperatorsUnavailable if PyTorch has no code for them."""
    architectures = present_architectures() if device_type == "cuda" else []
    if device_type == "cuda" and not architectures:
        raise OperatorsUnavailable("this PyTorch has no code for the GPUs here")
    return build.Target(tuple(architectures))


def load_library(device_type: str) -> None:
    """Load the library for cpu or cuda, built if need be; OperatorsUnavailable if that is impossible."""
    if device_type == "cuda" and not torch.cuda.is_available():
        raise OperatorsUnavailable("PyTorch sees no GPU")
    if device_type == "cuda" and torch.version.cuda is None:
        raise OperatorsUnavailable("they are written for CUDA, which this PyTorch is not built with")
    if device_type not in library.loaded:
        library.loaded[device_type] = library.Library(build.build(target_for(device_type)))


def gpus_to_check() -> dict[str, int]:
    """Return name -> index of the first GPU of each kind: of those of the run, or, with one process, of all present."""
    indices = list(present_gpus())
    if distributed.is_started():
        indices = [index for index in indices if index < distributed.local_world_size()]
    return {torch.cuda.get_device_name(index): index for index in reversed(indices)}


def check_once(device_type: str) -> None:
    """Compare the library with the reference, unless it passed before; OperatorsUnavailable if they disagree.

    A separate process does it, because a faulty kernel makes the GPU unusable for the process that launched it.
    """
    gpus = sorted(gpus_to_check()) if device_type == "cuda" else []
    selftest = Path(__file__).with_name("selftest.py").read_text(encoding="utf-8")
    conditions = hashlib.sha256("\n".join([torch.__version__, *gpus, selftest]).encode()).hexdigest()[:16]
    passed = build.library_path(target_for(device_type)).with_name(f"checked-{conditions}")
    if passed.exists():
        return
    command = [sys.executable, "-m", "torch_utils.ops.native", "--self-test", device_type]
    env = os.environ | {"STYLEFORMER_CACHE_DIR": str(build.cache_folder().parent)}  # absolute
    remedy = f"run python -m torch_utils.ops.native, or delete {passed.parent} to build again"
    try:
        done = subprocess.run(
            command, cwd=_ROOT, env=env, capture_output=True, text=True, errors="replace", timeout=CHECK_TIMEOUT_SEC
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OperatorsUnavailable(f"their check did not end ({type(error).__name__}): {remedy}") from error
    if done.returncode != 0:
        lines = ["no message", *done.stderr.strip().splitlines()]
        reason = next((line for line in lines if line.startswith("Error:")), lines[-1])
        raise OperatorsUnavailable(f"their check failed (exit code {done.returncode}: {reason}): {remedy}")
    with contextlib.suppress(OSError), atomic_write(passed, "w"):  # a read-only cache: checked by every run
        pass
