"""CUDA kernels for bias_act and upfirdn2d, compiled on the machine that uses them.

`prepare` decides once per process, by --ops or $STYLEFORMER_OPS (docs/ops.md). No forward pass builds or loads anything:
the operators look into `ops.kernels`. No decision depends on a measured time, so the same program computes the same numbers
on the same kind of GPU.
"""

import functools
import os

import torch

from torch_utils import distributed
from torch_utils.ops import kernels
from torch_utils.ops.native.loading import check_once, load_library
from torch_utils.ops.native.toolchain import OperatorsUnavailable

MODES = ("auto", "native", "reference")

# In mode auto, operators that torch.compile takes as plain PyTorch: Inductor fuses bias_act with its neighbours, where a
# kernel would write a tensor and read it again. (upfirdn2d is a convolution there, which Inductor fuses with nothing.)
LEFT_TO_INDUCTOR = frozenset({"bias_act"})


def prepare(device: torch.device, mode: str | None = None) -> None:
    """Enable the kernels for a device, built and checked if need be, or plain PyTorch; call it before the first forward pass.

    With several processes all of them call it, after `distributed.init`. The first process of each machine builds and
    checks; the kernels are enabled if that succeeded on every machine, and every process can load them.

    Args:
        mode: One of MODES. None = $STYLEFORMER_OPS, else auto.

    Raises:
        ValueError: $STYLEFORMER_OPS or `mode` is none of these.
        OperatorsUnavailable: The mode is native and the kernels cannot be used.
    """
    mode = chosen_mode(mode)
    kernels.disable_all()
    if mode == "reference" or (mode == "auto" and device.type != "cuda"):
        return
    for is_turn in (distributed.is_first_on_machine(), True):
        with distributed.raise_on_all_ranks():
            is_usable = not is_turn or _is_usable(device.type, mode)
        if not distributed.all_ranks_have(is_usable):
            return
    enable(device.type, mode)


def chosen_mode(mode: str | None = None) -> str:
    """Return `mode`, else $STYLEFORMER_OPS, else auto; ValueError if that is no mode."""
    mode = mode or os.environ.get("STYLEFORMER_OPS") or "auto"
    if mode not in MODES:
        raise ValueError(f"the operators' mode (STYLEFORMER_OPS) must be one of {', '.join(MODES)}; got '{mode}'")
    return mode


def enable(device_type: str, mode: str) -> None:
    """Load the kernels for cpu or cuda and let the operators use them; OperatorsUnavailable if they cannot be loaded."""
    load_library(device_type)
    from torch_utils.ops.native.bias_act_op import bias_act_native
    from torch_utils.ops.native.upfirdn2d_op import upfirdn2d_native

    for operator, kernel in (("bias_act", bias_act_native), ("upfirdn2d", upfirdn2d_native)):
        kernels.enable(operator, device_type, kernel, mode == "native" or operator not in LEFT_TO_INDUCTOR)


@functools.cache
def _is_usable(device_type: str, mode: str) -> bool:
    """Return whether the library can be loaded and, in mode auto, agrees with the reference; if not, print why, once."""
    try:
        load_library(device_type)
        if mode == "auto" and distributed.is_first_on_machine():
            check_once(device_type)
    except OperatorsUnavailable as error:
        if mode == "native":
            raise
        print(
            f"Operators: plain PyTorch, because the kernels cannot be used: {error} (STYLEFORMER_OPS=reference hides this)"
        )
        return False
    return True
