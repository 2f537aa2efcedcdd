"""Loads the compiled library and calls it: the same structures as in csrc/bias_act.cu and csrc/upfirdn2d_plan.h."""

import contextlib
import ctypes
from collections.abc import Callable
from ctypes import c_char_p, c_double, c_int32, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from torch_utils.ops.native.toolchain import OperatorsUnavailable

DEVICES = ("cpu", "cuda")
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float64: 3}


class Unloadable(OperatorsUnavailable):
    """A compiled library does not load here; the message names it."""


class BiasActCall(ctypes.Structure):
    """The arguments of styleformer_bias_act."""

    _fields_ = (
        *((name, c_void_p) for name in ("input", "grad", "grad_grad", "bias", "noise", "strength", "result", "stream")),
        *((name, c_double) for name in ("alpha", "gain", "clamp")),
        *((name, c_int64) for name in ("outer", "channels", "inner", "noise_outer")),
        *((name, c_int32) for name in ("act", "dtype", "order")),
    )


class UpfirdnCall(ctypes.Structure):
    """The arguments of styleformer_upfirdn2d."""

    _fields_ = (
        *((name, c_void_p) for name in ("x", "f", "y", "stream")),
        ("gain", c_double),
        *((name, c_int64) for name in ("batch", "channels", "in_height", "in_width", "out_height", "out_width")),
        *((name, c_int64) for name in ("pad_x0", "pad_y0")),
        *((name, c_int32) for name in ("up_x", "up_y", "down_x", "down_y", "taps_x", "taps_y")),
        *((name, c_int32) for name in ("separable", "flip", "channels_last", "dtype")),
    )


class Library:
    """The functions of one compiled library."""

    def __init__(self, path: Path) -> None:
        try:
            functions = ctypes.CDLL(str(path))
            for name, call in (("bias_act", BiasActCall), ("upfirdn2d", UpfirdnCall)):
                size = getattr(functions, f"styleformer_{name}_call_size")
                size.restype = c_int64
                getattr(functions, f"styleformer_{name}").argtypes = [ctypes.POINTER(call)]
                if size() != ctypes.sizeof(call):
                    raise Unloadable(f"{path} is of another version")
            self._kernel = functions.styleformer_kernel
        except (OSError, AttributeError) as error:
            raise Unloadable(f"{path} cannot be loaded ({error})") from error
        self._bias_act, self._upfirdn2d = functions.styleformer_bias_act, functions.styleformer_upfirdn2d
        self._kernel.argtypes, self._kernel.restype = [c_int32, ctypes.POINTER(c_int64)], c_char_p

    def launches(self) -> dict[str, int]:
        """Return the names of all kernels of the library and how often each was launched."""
        found: dict[str, int] = {}
        launches = c_int64()
        while name := self._kernel(len(found), launches):
            found[name.decode()] = launches.value
        return found

    def bias_act(self, call: BiasActCall, device: torch.device) -> None:
        """Run it on the current stream of the device."""
        self._run(self._bias_act, call, device)

    def upfirdn2d(self, call: UpfirdnCall, device: torch.device) -> None:
        """Run it on the current stream of the device."""
        self._run(self._upfirdn2d, call, device)

    def _run(self, function: Callable[..., int], call: BiasActCall | UpfirdnCall, device: torch.device) -> None:
        is_elsewhere = device.type == "cuda" and device.index != torch.cuda.current_device()
        with torch.cuda.device(device) if is_elsewhere else contextlib.nullcontext():
            if device.type == "cuda":
                call.stream = torch.cuda.current_stream(device).cuda_stream
            code = function(call)
        if code != 0:
            name = type(call).__name__.removesuffix("Call")
            raise RuntimeError(f"native operator {name}: CUDA error {code}" if code > 0 else f"{name}: impossible call")


_loaded: dict[str, Library] = {}  # by device type


def use_library(device_type: str, path: Path) -> None:
    """Let the operators of this kind of device run with the library at `path`."""
    _loaded[device_type] = Library(path)


def library_of(device: torch.device) -> Library:
    """Return the loaded library for a device."""
    if device.type not in _loaded:
        raise RuntimeError(f"native operators for {device.type} are not loaded; call torch_utils.ops.native.require()")
    return _loaded[device.type]


def is_eager(x: Tensor) -> bool:
    """Whether `x` is a tensor with values, not one that stands for it while torch.compile traces."""
    return type(x) in (Tensor, torch.nn.Parameter) and not torch.compiler.is_compiling()


def math_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that the operators compute in, and take filters and the noise strength in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def address(x: Tensor | None, device: torch.device) -> int | None:
    """The address of a tensor's first element; None where there is no tensor. ValueError if it is not on the device."""
    if x is None:
        return None
    if x.device != device:  # a kernel that follows such an address ends the process, or worse, does not
        raise ValueError(f"a tensor on {x.device} goes with one on {device}; move it there first")
    return x.data_ptr()


def in_memory_order_of(x: Tensor, like: Tensor) -> Tensor:
    """`x` itself, or a copy of it, laid out in memory as the dense tensor `like` of equal shape."""
    if x.stride() == like.stride() or (x.is_contiguous() and like.is_contiguous()):
        return x
    return torch.empty_like(like).copy_(x)
