"""Precision of the matrix products on a device; weights, R1, path length and the epilogue of D stay float32."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from torch_utils.distributed import all_ranks_have

INITIAL_LOSS_SCALE = 2.0**12  # keeps gradients of single pixels, about 1e-7, clear of float16's smallest numbers


@dataclass(frozen=True)
class Precision:
    """A choice of --precision on one device."""

    name: str  # bf16, fp16, fp32 or tf32
    dtype: torch.dtype | None = None  # of tokens, feature maps and their products in the main phases; None = float32
    allow_tf32: bool = False  # all float32 products are rounded to TF32
    regularizer_tf32: bool = False  # those of the phases with second derivatives are


KNOWN = {
    "fp32": Precision("fp32"),
    "tf32": Precision("tf32", allow_tf32=True),
    "bf16": Precision("bf16", torch.bfloat16, regularizer_tf32=True),
    "fp16": Precision("fp16", torch.float16, regularizer_tf32=True),
}


def resolve_precision(name: str, device: torch.device) -> Precision:
    """The precision on this device of a name, of those that PerformanceConfig knows.

    Once processes are joined, all of them call it: auto means the same on each, whatever their GPUs.
    """
    if name == "auto":
        name = "fp32" if device.type == "cpu" else "bf16" if all_ranks_have(is_ampere(device)) else "fp16"
    return KNOWN[name]


def is_ampere(device: torch.device) -> bool:
    """Whether a GPU is of that generation or a newer one, which multiplies bf16 and TF32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def describe_precision(name: str, device: torch.device) -> str:
    """One line that names the precision in use, with a warning where the device is slow at it."""
    precision = resolve_precision(name, device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    line = f"Precision: {precision.name}{f' (auto, on {where})' if name == 'auto' else ''}"
    if precision.name in ("bf16", "tf32") and device.type == "cuda" and not is_ampere(device):
        return f"{line}. {where} does not multiply {precision.name} itself and may lack some operators: use --precision=fp16."
    if precision.name == "tf32" and device.type == "cpu":
        return f"{line}, which is fp32 on the CPU."
    if precision.name == "fp16" and device.type == "cpu":
        return f"{line}, which most CPUs compute very slowly: use fp32, or bf16."
    return line


def allow_tf32(is_allowed: bool) -> None:
    """Let float32 matrix products and convolutions on the GPU be rounded to TF32, or not."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = is_allowed


def set_arithmetic(precision: Precision) -> None:
    """Set, for this process, how GPUs compute float32 products, and that attention leaves cuDNN out.

    Its backward pass, the default on H100 and newer, returned NaN for lengths such as 64 tokens (pytorch issue 196678).
    """
    allow_tf32(precision.allow_tf32)
    torch.backends.cuda.enable_cudnn_sdp(False)


@contextlib.contextmanager
def tf32_where(is_allowed: bool) -> Iterator[None]:
    """Allow TF32 in float32 products inside the block; if not allowed, leave PyTorch's switches unchanged."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    if is_allowed:
        allow_tf32(True)
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def loss_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Scales the loss where gradients pass through float16; disabled otherwise."""
    is_needed = precision.dtype == torch.float16
    return torch.amp.GradScaler(device.type, init_scale=INITIAL_LOSS_SCALE, enabled=is_needed)
