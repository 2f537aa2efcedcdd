"""Modes of computation by name: a precision, alone or with +compile or +graphs."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from dnnlib.dataclass_values import require
from training.compilation import set_where_known
from training.config import PerformanceConfig
from training.precision import KNOWN, is_ampere, set_arithmetic

BASELINE = "baseline"
MAX_VERSIONS = 64  # of a compiled network: by mode, phase and network trained


@dataclass(frozen=True)
class Mode:
    """A precision, and whether networks are compiled, or compiled and replayed as CUDA graphs."""

    precision: str
    compiled: bool = False
    graphs: bool = False

    @property
    def name(self) -> str:
        """The name in rows and --modes."""
        return self.precision + ("+graphs" if self.graphs else "+compile" if self.compiled else "")

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of matrix products."""
        return KNOWN[self.precision].dtype or torch.float32

    @property
    def performance(self) -> PerformanceConfig:
        """The same as part of a RunConfig."""
        return PerformanceConfig(self.precision, compile="1" if self.compiled else "0", cuda_graphs=self.graphs)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Set PyTorch's global switches for this mode."""
        matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()
        set_arithmetic(KNOWN[self.precision])
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution


def parse_mode(name: str) -> Mode:
    """Return the mode of a name such as bf16+compile; raises ConfigError."""
    precision, plus, rest = name.partition("+")
    names = f"combine {', '.join(KNOWN)} with +compile, +graphs or nothing"
    require(precision in KNOWN and rest in (("compile", "graphs") if plus else ("",)), f"--modes={name}: {names}")
    return Mode(precision, compiled=bool(plus), graphs=rest == "graphs")


def default_modes(device: torch.device) -> list[Mode]:
    """Return the default modes: on the CPU fp32, and bf16 if it has bf16 instructions."""
    if device.type == "cpu":
        return [Mode("fp32"), *([Mode("bf16")] if torch.cpu._is_avx512_bf16_supported() else [])]
    half = "bf16" if is_ampere(device) else "fp16"
    names = ["fp32", *(["tf32"] if half == "bf16" else []), half, f"{half}+compile", f"{half}+graphs"]
    return [parse_mode(name) for name in names]


def forget_compiled(modes: list[Mode]) -> None:
    """Reset torch.compile, which beyond a number of versions of a network would silently run it uncompiled."""
    if any(mode.compiled for mode in modes):
        torch.compiler.reset()
        set_where_known(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
        set_where_known(torch._dynamo.config, "recompile_limit", MAX_VERSIONS)
