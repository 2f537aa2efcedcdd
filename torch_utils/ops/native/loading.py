"""Builds and loads the compiled operators, and checks them once on every kind of GPU before they are trusted."""

import contextlib
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import torch

from dnnlib.files import atomic_write
from torch_utils.ops.native import build, library, toolchain

_ROOT = Path(__file__).parents[3]
CHECK_TIMEOUT_SEC = 480


def target_for(device_type: str) -> build.Target:
    """Return what is to be built for cpu, or for the GPUs present; OperatorsUnavailable where PyTorch has no code for them."""
    if device_type != "cuda":
        return build.Target()
    architectures = toolchain.present_architectures()
    if not architectures:
        raise toolchain.OperatorsUnavailable("this PyTorch has no code for the GPUs here")
    return build.Target(tuple(architectures))


def load(device_type: str) -> None:
    """Load the operators for cpu or cuda, built if need be, and register them with PyTorch.

    Raises:
        OperatorsUnavailable: They cannot be built or loaded.
    """
    if device_type == "cuda" and not torch.cuda.is_available():
        raise toolchain.OperatorsUnavailable("PyTorch sees no GPU")
    if device_type == "cuda" and torch.version.cuda is None:
        raise toolchain.OperatorsUnavailable("they are written for CUDA, which this PyTorch is not built with")
    target = target_for(device_type)
    try:
        library.use_library(device_type, build.build(target))
    except library.Unloadable:  # the system may have changed below the cache
        build.forget(target)
        library.use_library(device_type, build.build(target))
    import torch_utils.ops.native.bias_act_op
    import torch_utils.ops.native.upfirdn2d_op  # noqa: F401


def check_once(device_type: str) -> None:
    """Compare the operators with the reference unless that was done before with this library and these devices.

    A separate process does it: a faulty kernel leaves the GPU unusable for the process that ran it.

    Raises:
        OperatorsUnavailable: The comparison failed.
    """
    name = f"checked-{_device_names(device_type)}-{_conditions()}"
    passed = build.library_path(target_for(device_type)).with_name(name)
    if passed.exists():
        return
    command = [sys.executable, "-m", "torch_utils.ops.native", "--self-test", device_type]
    environment = os.environ | {"STYLEFORMER_OPS": "native"}
    try:
        done = subprocess.run(
            command, cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=CHECK_TIMEOUT_SEC
        )
    except subprocess.TimeoutExpired:
        raise toolchain.OperatorsUnavailable("their check did not end: run python -m torch_utils.ops.native") from None
    if done.returncode != 0:
        message = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise toolchain.OperatorsUnavailable(f"their check failed ({message[0]}): run python -m torch_utils.ops.native")
    with contextlib.suppress(OSError), atomic_write(passed, "w"):  # in a read-only cache: checked every time
        pass


def _conditions() -> str:
    """What else the check depends on: itself and PyTorch."""
    text = f"{torch.__version__} {Path(__file__).with_name('selftest.py').read_text(encoding='utf-8')}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _device_names(device_type: str) -> str:
    names = (
        {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())} if device_type == "cuda" else set()
    )
    return re.sub(r"[^A-Za-z0-9]+", "-", "-".join(sorted(names)) or "cpu")
