"""The compiled kernels in use. `native.prepare` enables them; an operator without one runs as plain PyTorch."""

from collections.abc import Callable

import torch
from torch import Tensor

Kernel = Callable[..., Tensor]

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_eager: dict[tuple[str, str], Kernel] = {}  # (operator, device type) -> kernel
_compiled: dict[tuple[str, str], Kernel] = {}  # the same, inside code that torch.compile traces


def find_kernel(operator: str, x: Tensor) -> Kernel | None:
    """Return the kernel for bias_act or upfirdn2d of x; None = use the reference."""
    table = _compiled if torch.compiler.is_compiling() else _eager
    return table.get((operator, x.device.type)) if x.dtype in DTYPES else None


def enable(operator: str, device_type: str, kernel: Kernel, in_compiled_code: bool) -> None:
    """Use a kernel on this type of device, also in code that torch.compile traces if `in_compiled_code`."""
    _eager[operator, device_type] = kernel
    if in_compiled_code:
        _compiled[operator, device_type] = kernel


def disable_all() -> None:
    _eager.clear()
    _compiled.clear()
