"""Compiles the networks for the phases that need no second derivatives, where the machine can."""

import contextlib
import functools
import importlib.util
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dnnlib.dataclass_values import require
from dnnlib.text import first_line
from metrics.cache import default_folder
from torch_utils.distributed import print0
from training.config import PerformanceConfig

Run = Callable[..., Tensor]  # a network's forward pass


class Compiled:
    """The compiled forward pass of a network; where compiling fails, prints one line and runs the network eagerly.

    The network itself is unchanged, so names, copies, files and phases with second derivatives are unaffected.
    """

    def __init__(self, network: nn.Module, performance: PerformanceConfig, has_graphs: bool = False) -> None:
        from torch._dynamo.exc import TorchDynamoException  # takes a second to import
        from torch._functorch import config as functorch_config
        from torch._inductor import config as inductor_config

        # Compile the backward pass with the forward pass, where a failure is caught.
        set_where_known(functorch_config, "force_non_lazy_backward_lowering", True)
        # One kernel per stack or concatenation instead of one per part.
        set_where_known(inductor_config, "force_pointwise_cat", True)
        warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")  # --precision decides about them
        mode = "reduce-overhead" if has_graphs else None
        self.name = type(network).__name__
        self.eager: Run = network
        self.run: Run = torch.compile(network, dynamic=False, mode=mode)
        self.failure = TorchDynamoException
        self.must_compile = performance.compile == "1"

    def __call__(self, *arguments: Any, **settings: Any) -> Tensor:
        """Run the network on contiguous inputs: each memory layout would be compiled separately."""
        if self.run is self.eager:
            return self.run(*arguments, **settings)
        announce()
        arguments = tuple(x.contiguous() if isinstance(x, Tensor) else x for x in arguments)
        try:
            return self.run(*arguments, **settings)
        except self.failure as error:
            if self.must_compile:
                raise
            reason = first_line(error)
            print0(f"{self.name} runs without the compiler, which failed ({reason}). --compile=0 hides this.")
            self.run = self.eager
            return self.run(*arguments, **settings)


def set_where_known(config: Any, name: str, value: object) -> None:
    """Set one of PyTorch's private options, which its versions may lack."""
    if hasattr(config, name):
        setattr(config, name, value)


def forward_pass(
    network: nn.Module, performance: PerformanceConfig, device: torch.device, has_graphs: bool | None = None
) -> Run:
    """The forward pass for phases without second derivatives: compiled where requested and possible.

    `has_graphs` is the decision of all ranks; None = that of `resolve_graphs` here.
    """
    if not resolve_compile(performance.compile, device)[0]:
        return network
    return Compiled(network, performance, resolve_graphs(performance, device) if has_graphs is None else has_graphs)


@functools.cache
def announce() -> None:
    """Print once that the networks are being compiled, and where the result is cached."""
    print0(f"Compiling the networks: minutes at the first start, less later (cached in {use_cache_folder()}).")


def use_cache_folder() -> str:
    """Set PyTorch's folder for compiled code to ours, unless the user set one; returns the folder."""
    folder = (
        default_folder() / "compiled-2"
    )  # a new number when an operator's signature changes: old code calls the old one
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))  # it contains Triton's cache
    return os.environ.get("TORCHINDUCTOR_CACHE_DIR") or tempfile.gettempdir()


def resolve_graphs(performance: PerformanceConfig, device: torch.device) -> bool:
    """Whether to replay the compiled networks as CUDA graphs; by default, if a small graph works."""
    if device.type != "cuda" or performance.cuda_graphs is False or not resolve_compile(performance.compile, device)[0]:
        return False
    return performance.cuda_graphs is True or replays(device)


@functools.cache
def replays(device: torch.device) -> bool:
    """Whether a small CUDA graph computes the right values on this device; prints the reason if not."""
    run = torch.compile(_probe, dynamic=False, mode="reduce-overhead")
    try:
        for value in range(4):  # run, recorded, and replayed twice
            torch.compiler.cudagraph_mark_step_begin()
            x = torch.full([8], float(value), device=device)
            torch.testing.assert_close(run(x), _probe(x))
    except Exception as error:  # training works without graphs
        print0(f"The networks run without CUDA graphs: a first small one failed ({first_line(error)}).")
        return False
    return True


@functools.cache
def resolve_compile(choice: str, device: torch.device) -> tuple[bool, str]:
    """Whether to compile on this device, and a line with the reason why not ("" = none).

    Raises ConfigError if --compile=1 is not possible here.
    """
    if choice == "0" or (choice == "auto" and device.type == "cpu"):
        return False, ""
    reason = why_unavailable(device)
    require(
        not reason or choice == "auto", f"--compile=1 is not possible here: {reason}. Leave it out, or use --compile=0"
    )
    return not reason, reason and f"The networks run without the compiler: {reason} (--compile=0 hides this)."


def why_unavailable(device: torch.device) -> str:
    """Why PyTorch cannot compile for this device, with the remedy; "" = it compiled a small function."""
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) < (7, 0):
            return f"it does not support {torch.cuda.get_device_name(device)}"
        if importlib.util.find_spec("triton") is None:
            return "the package triton, which it needs, is not installed"
    variable, names = ("CC", ("gcc", "clang", "cc")) if device.type == "cuda" else ("CXX", ("g++", "clang++", "c++"))
    if not any(shutil.which(name) for name in (os.environ.get(variable) or "", *names)):
        return f"it needs a C compiler: install {names[0]}, or name yours in the environment variable {variable}"
    use_cache_folder()
    try:
        torch.compile(_probe, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:  # compilers fail in many ways, and training works without
        return f"a first small function failed to compile ({first_line(error)})"
    return ""


def _probe(x: Tensor) -> Tensor:
    return (x * 2 + 1).sigmoid()
