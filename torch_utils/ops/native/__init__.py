"""Decides whether the compiled operators or the reference in plain PyTorch are used.

auto       compiled on GPUs where they can be built and agree with the reference, otherwise the reference, after one line
           that says why; inside of code that torch.compile compiles, the reference of bias_act (see below); the
           reference on CPUs
native     compiled everywhere, or an error (on CPUs for tests: they are not made to be fast there)
reference  plain PyTorch everywhere

The mode is what `set_mode` was told, else $STYLEFORMER_OPS, else auto. Nothing is built before it is used. What is used
never depends on a measured time: the same program on the same kind of GPU computes the same numbers.

Decided by reasoning, to be revisited by measurement: inside of compiled code, Inductor makes one kernel of the reference
of bias_act and its neighbours, so an operator of ours would only force it to write a tensor and read it again. The
reference of upfirdn2d is a convolution that Inductor calls but fuses with nothing: the compiled operator stays.
"""

import os

import torch
from torch import Tensor

MODES = ("auto", "native", "reference")
FUSED_BY_COMPILER = frozenset({"bias_act"})  # left to torch.compile in mode auto

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_chosen: str | None = None  # by set_mode
_ready: dict[str, bool] = {}  # by device type: could the compiled operators be loaded?


def set_mode(mode: str) -> None:
    """Choose auto, native or reference for this process; ValueError for anything else."""
    global _chosen
    _chosen = _known(mode, "the mode of the operators")
    _ready.clear()


def mode() -> str:
    """Return the mode in force; ValueError if $STYLEFORMER_OPS is none of them."""
    return _chosen or _known(os.environ.get("STYLEFORMER_OPS") or "auto", "the environment variable STYLEFORMER_OPS")


def should_use_native(x: Tensor, operator: str) -> bool:
    """Whether the compiled bias_act or upfirdn2d takes this tensor; the first time it loads them, built if need be.

    Raises:
        RuntimeError: The mode is native and they cannot be used.
    """
    if not (x.is_cuda or mode() == "native") or x.dtype not in _DTYPES or mode() == "reference":
        return False
    if mode() == "auto" and operator in FUSED_BY_COMPILER and torch.compiler.is_compiling():
        return False
    return is_ready(x.device.type)


def is_ready(device_type: str) -> bool:
    """Whether the compiled operators for cpu or cuda can be used in this mode, building them if need be."""
    if device_type not in _ready:
        _ready[device_type] = device_type in ("cpu", "cuda") and _prepared(device_type, is_checked=False)
    return _ready[device_type]


def mark_constants_for_dynamo() -> None:
    """Let torch.compile ask once, instead of tracing how the answer comes about; imports it, which takes two seconds."""
    torch.compiler.assume_constant_result(is_ready)


def prepare(device: torch.device) -> None:
    """Build, check and load what `device` will need: the first process of a machine, whose findings the others take.

    To be called by every process, after `distributed.init`; without it operators are built when they are first used.
    A build may take longer than a collective may wait.
    """
    from torch_utils import distributed

    if mode() != "native" and (mode() != "auto" or device.type != "cuda"):
        return
    is_first = distributed.local_rank() == 0
    distributed.take_time_together(lambda: is_first and is_ready(device.type))
    is_usable = distributed.broadcast_object_on_node(_ready.get(device.type))
    with distributed.raise_on_all_ranks():
        if not is_first:
            _ready[device.type] = is_usable and _prepared(device.type, is_checked=True)


def require(device_type: str) -> None:
    """Load the compiled operators for cpu or cuda, whatever the mode, building them if need be.

    Raises:
        OperatorsUnavailable: They cannot be built or loaded.
    """
    from torch_utils.ops.native.loading import load

    load(device_type)
    mark_constants_for_dynamo()


def _prepared(device_type: str, is_checked: bool) -> bool:
    """Whether the library could be loaded and, in auto, agrees with the reference; a line says why not."""
    from torch_utils.ops.native.loading import check_once
    from torch_utils.ops.native.toolchain import OperatorsUnavailable

    try:
        require(device_type)
        if mode() == "auto" and not is_checked:
            check_once(device_type)
    except OperatorsUnavailable as error:
        if mode() == "native":
            raise
        print(f"Operators: plain PyTorch, because the native ones cannot be used: {error} (--ops=reference hides this)")
        return False
    return True


def _known(mode: str, what: str) -> str:
    if mode not in MODES:
        raise ValueError(f"{what} must be one of {', '.join(MODES)}; got '{mode}'")
    return mode
