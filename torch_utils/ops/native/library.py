"""Calls the compiled library by ctypes. The structures are those of csrc/bias_act.cu and csrc/upfirdn2d_plan.h."""

import contextlib
import ctypes
from collections.abc import Callable
from ctypes import c_char_p, c_double, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from torch_utils.ops.native.toolchain import OperatorsUnavailable

DEVICES = ("cpu", "cuda")
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float64: 3}


class BiasActCall(ctypes.Structure):
    """The arguments of styleformer_bias_act."""

    _fields_ = (
        *((name, c_void_p) for name in ("input", "grad", "bias", "noise", "strength", "result", "stream")),
        *((name, c_double) for name in ("alpha", "gain", "clamp")),
        *((name, c_int64) for name in ("outer", "channels", "inner", "noise_outer")),
        *((name, c_int32) for name in ("act", "dtype")),
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
    def __init__(self, path: Path) -> None:
        try:
            functions = ctypes.CDLL(str(path))
            self._functions = {}
            for name, call in (("bias_act", BiasActCall), ("upfirdn2d", UpfirdnCall)):
                size = getattr(functions, f"styleformer_{name}_call_size")
                size.restype = c_int64
                if size() != ctypes.sizeof(call):
                    raise AttributeError(f"{name} takes other arguments")
                self._functions[call] = getattr(functions, f"styleformer_{name}")
                self._functions[call].argtypes = [ctypes.POINTER(call)]
            self._kernel = functions.styleformer_kernel
        except (OSError, AttributeError) as error:
            remedy = "delete its folder to build it again"
            raise OperatorsUnavailable(f"{path} cannot be loaded ({error}): {remedy}") from error
        self._kernel.argtypes, self._kernel.restype = [c_int32, ctypes.POINTER(c_int64)], c_char_p

    def launches(self) -> dict[str, int]:
        """Return how often each kernel of the library was launched, by name."""
        found: dict[str, int] = {}
        launches = c_int64()
        while name := self._kernel(len(found), launches):
            found[name.decode()] = launches.value
        return found

    def run(self, call: BiasActCall | UpfirdnCall, device: torch.device) -> None:
        """Run an operator on the current stream of the device."""
        is_elsewhere = device.type == "cuda" and device.index != torch.cuda.current_device()
        with torch.cuda.device(device) if is_elsewhere else contextlib.nullcontext():
            if device.type == "cuda":
                call.stream = torch.cuda.current_stream(device).cuda_stream
            code = self._functions[type(call)](call)
        if code != 0:
            problem = f"CUDA error {code}" if code > 0 else "invalid call"
            raise RuntimeError(f"native operator {type(call).__name__.removesuffix('Call')}: {problem}")


loaded: dict[str, Library] = {}  # by device type; filled by `loading.load_library`


def library_of(device: torch.device) -> Library:
    if device.type not in loaded:
        raise RuntimeError(f"native operators for {device.type} are not loaded; call torch_utils.ops.native.prepare()")
    return loaded[device.type]


def register(
    name: str,
    schema: str,
    launch: Callable[..., Tensor],
    empty_result: Callable[..., Tensor],
    save: Callable[[Any, tuple[Any, ...], Tensor], None],
    derivative: Callable[..., tuple[Any, ...]],
) -> Callable[..., Tensor]:
    """Register styleformer::NAME with PyTorch and return the function to call.

    torch.compile sees the registered operator. Eager code calls a torch.autograd.Function instead, which takes a third of
    the CPU time, all that a small tensor costs.

    Args:
        schema: Its arguments and result in the language of torch.library.
        launch: Computes the result.
        empty_result: Returns a tensor with the shape and layout of the result.
        save: Saves what `derivative` needs, called with (ctx, inputs, output).
        derivative: Returns the gradients of all arguments for (ctx, grad).
    """
    qualified = f"styleformer::{name}"
    torch.library.define(qualified, schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(qualified, DEVICES, launch)
    torch.library.register_fake(qualified, empty_result)
    torch.library.register_autograd(qualified, derivative, setup_context=save)
    registered = getattr(torch.ops.styleformer, name)

    class Eager(Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Tensor:
            result = launch(*arguments)
            save(ctx, arguments, result)
            return result

        backward = staticmethod(derivative)

    def call(x: Tensor, *arguments: Any) -> Tensor:
        is_eager = type(x) in (Tensor, torch.nn.Parameter) and not torch.compiler.is_compiling()
        return Eager.apply(x, *arguments) if is_eager else registered(x, *arguments)

    return call


def math_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype the operators compute in, and take filters and the noise strength in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def address(x: Tensor | None, device: torch.device) -> int | None:
    """Return the address of a tensor's first element; None for no tensor. ValueError if it is not on the device."""
    if x is None:
        return None
    if x.device != device:  # a kernel that follows such an address crashes, or reads other data
        raise ValueError(f"one tensor is on {x.device}, another on {device}; move it there first")
    return x.data_ptr()


def in_memory_order_of(x: Tensor, like: Tensor) -> Tensor:
    """Return `x`, or a copy of it, with the memory layout of `like`, a dense tensor of the same shape."""
    if x.stride() == like.stride() or (x.is_contiguous() and like.is_contiguous()):
        return x
    return torch.empty_like(like).copy_(x)
