"""Decides whether the compiled operators or the reference in plain PyTorch are used.

auto       compiled on GPUs where they can be built, pass their check and are measured to be faster, otherwise the
           reference, after one line that says why; the reference on CPUs
native     compiled everywhere, or an error (on CPUs for tests: they are not made to be fast there)
reference  plain PyTorch everywhere

The mode is what `set_mode` was told, else $STYLEFORMER_OPS, else auto. Nothing is built before it is used.
"""

import os

import torch
from torch import Tensor

MODES = ("auto", "native", "reference")
COMPILED = "+compile"  # ends the name of an operator inside of code that torch.compile compiles
OPERATORS = tuple(name + where for name in ("bias_act", "upfirdn2d") for where in ("", COMPILED))

_chosen: str | None = None  # by set_mode
_ready: dict[str, bool] = {}  # by device type: could the compiled operators be loaded?
_faster: dict[str, frozenset[str]] = {}  # by device type: those that were measured to be faster than the reference


def set_mode(mode: str) -> None:
    """Choose auto, native or reference for this process; ValueError for anything else."""
    global _chosen
    _chosen = _known(mode, "the mode of the operators")
    _ready.clear()


def mode() -> str:
    """Return the mode in force; ValueError if $STYLEFORMER_OPS is none of them."""
    return _chosen or _known(os.environ.get("STYLEFORMER_OPS") or "auto", "the environment variable STYLEFORMER_OPS")


def is_used_for(x: Tensor, operator: str) -> bool:
    """Whether the compiled bias_act or upfirdn2d takes this tensor; the first time it loads them, built if need be.

    Raises:
        RuntimeError: The mode is native and they cannot be used.
    """
    if not (x.is_cuda or mode() == "native") or x.dtype not in _DTYPES:
        return False
    if mode() == "reference" or not is_ready(x.device.type):
        return False
    name = operator + COMPILED if torch.compiler.is_compiling() else operator
    return mode() == "native" or is_faster(x.device.type, name)


def is_faster(device_type: str, operator: str) -> bool:
    """Whether an operator was measured to be faster than its reference when it was checked on this kind of device.

    What comes of it under torch.compile, which fuses the reference with what stands around it, is asked with COMPILED
    at the end of the operator's name.
    """
    return operator in _faster[device_type]


def is_ready(device_type: str) -> bool:
    """Whether the compiled operators for cpu or cuda can be used in this mode, building them if need be."""
    if device_type not in _ready:
        _ready[device_type] = device_type in ("cpu", "cuda") and _prepared(device_type)
    return _ready[device_type]


def answer_as_constants() -> None:
    """Let torch.compile ask once, instead of tracing how the answers come about; imports it, which takes two seconds."""
    for question in (is_ready, is_faster):
        torch.compiler.assume_constant_result(question)


def prepare(device: torch.device) -> None:
    """Build, check and load what `device` will need: the first process of a machine, whose findings the others take.

    To be called by every process, after `distributed.join`; without it operators are built when they are first used.
    """
    from torch_utils import distributed

    if mode() != "native" and (mode() != "auto" or device.type != "cuda"):
        return
    is_first = distributed.local_rank() == 0
    with distributed.together():
        if is_first:
            is_ready(device.type)
    ready, found = distributed.share_on_machine((_ready.get(device.type), _faster.get(device.type)))
    if found is not None:
        _faster[device.type] = found
    with distributed.together():
        if not is_first:
            _ready[device.type] = ready and _loaded(device.type)


def require(device_type: str) -> None:
    """Load the compiled operators for cpu or cuda, whatever the mode, building them if need be.

    Raises:
        OperatorsUnavailable: They cannot be built or loaded.
    """
    from torch_utils.ops.native.loading import load

    load(device_type)


def _loaded(device_type: str) -> bool:
    """Whether the library could be loaded and, in auto, agrees with the reference; a line says why not."""
    from torch_utils.ops.native.loading import check_once, load
    from torch_utils.ops.native.toolchain import OperatorsUnavailable

    try:
        load(device_type)
        if mode() == "auto" and device_type not in _faster:
            _faster[device_type] = check_once(device_type)
    except OperatorsUnavailable as error:
        if mode() == "native":
            raise
        print(f"Operators: plain PyTorch, because the native ones cannot be used: {error} (--ops=reference hides this)")
        return False
    return True


def _prepared(device_type: str) -> bool:
    from torch_utils.distributed import print0

    _faster.pop(device_type, None)
    if not _loaded(device_type):
        return False
    lost = [] if mode() == "native" else [name for name in OPERATORS if name not in _faster[device_type]]
    if lost:
        print0(
            f"Operators: plain PyTorch for {', '.join(lost)}: the native ones did not prove faster (--ops=native forces them)"
        )
    return True


def _known(mode: str, what: str) -> str:
    if mode not in MODES:
        raise ValueError(f"{what} must be one of {', '.join(MODES)}; got '{mode}'")
    return mode


_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
