"""The compiled kernels in use. `native.prepare` enables them; an operator without one runs as plain PyTorch."""

from collections.abc import Callable

import torch
from torch import Tensor

Kernel = Callable[..., Tensor]

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_table: dict[tuple[str, str], tuple[Kernel, bool]] = {}  # (operator, device type) -> kernel, used in compiled code too?


def find_kernel(operator: str, x: Tensor) -> Kernel | None:
    """Return the kernel for bias_act or upfirdn2d of x; None = use the reference."""
    kernel, in_compiled_code = _table.get((operator, x.device.type), (None, False))
    return kernel if x.dtype in DTYPES and (in_compiled_code or not torch.compiler.is_compiling()) else None


def enable(operator: str, device_type: str, kernel: Kernel, in_compiled_code: bool) -> None:
    """Use a kernel on this type of device, also in code that torch.compile traces if `in_compiled_code`."""
    _table[operator, device_type] = kernel, in_compiled_code


def disable_all() -> None:
    _table.clear()
