"""Reads the published program's pickles as plain data, without importing or running anything they name.

In the pickle, a network is rebuilt from its class name, its source code and its attributes. Here it becomes a
`PublishedModule` of names and tensors. Only the names in `HARMLESS` are accepted, each replaced by a function of ours.
"""

import collections
import io
import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class PublishedFileError(ValueError):
    """A file that is not a published checkpoint, is damaged, or asks for something that is not harmless."""


@dataclass
class PublishedModule:
    """A network or a part of one: its class name and its attributes."""

    class_name: str
    state: dict[str, Any] = field(default_factory=dict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state

    @property
    def init_kwargs(self) -> dict[str, Any]:
        return dict(self.state.get("_init_kwargs", {}))

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Yield parameters and buffers by dotted name, including those of its parts."""
        for group in ("_parameters", "_buffers"):
            for name, value in self.state.get(group, {}).items():
                if isinstance(value, Tensor):
                    yield prefix + name, value
        for name, part in self.state.get("_modules", {}).items():
            if isinstance(part, PublishedModule):
                yield from part.tensors(f"{prefix}{name}.")


class PlainDict(dict[str, Any]):
    """In place of a subclass of dict."""


@dataclass
class Scalar:
    """In place of a NumPy number type."""

    code: str

    def __setstate__(self, state: Any) -> None:
        """Ignore byte order and the like; numbers are little-endian in these files."""


def module_of(meta: dict[str, Any]) -> PublishedModule:
    """A network from its description; the source code in it is ignored."""
    return PublishedModule(str(meta["class_name"]), dict(meta["state"]))


def scalar_type(code: str, align: bool = False, copy: bool = False) -> Scalar:
    """A number type from its NumPy code, such as f8; raises PublishedFileError for anything but plain numbers."""
    if code not in ("f8", "f4", "f2", "i8", "i4", "u1", "b1"):
        raise PublishedFileError(f"NumPy data of type {code!r}, which is not a plain number")
    return Scalar(code)


def scalar_value(kind: Scalar, data: bytes) -> float:
    return np.frombuffer(data, dtype=kind.code, count=1)[0].item()


def storage(data: bytes) -> Tensor:
    """The numbers of a tensor, one-dimensional, from the torch archive inside the pickle."""
    check_storage_size(data)
    loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if isinstance(loaded, torch.storage.TypedStorage):
        return torch.tensor([], dtype=loaded.dtype).set_(loaded)  # type: ignore[call-overload, no-any-return]
    raise PublishedFileError("a torch archive inside that holds no storage")


def rebuild_tensor(numbers: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> Tensor:
    """A tensor as a view of its numbers; raises PublishedFileError where it would reach beyond them."""
    reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
    if offset < 0 or min([*size, *stride], default=1) < 0 or (math.prod(size) > 0 and reach > numbers.numel()):
        raise PublishedFileError(f"a tensor of shape {tuple(size)} in a storage of {numbers.numel()} numbers")
    return numbers.as_strided(size, stride, offset).clone()


HARMLESS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): module_of,
    ("dnnlib.util", "EasyDict"): PlainDict,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_parameter"): lambda data, requires_grad, hooks: data,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch.storage", "_load_from_bytes"): storage,
    ("numpy._core.multiarray", "scalar"): scalar_value,
    ("numpy.core.multiarray", "scalar"): scalar_value,
    ("numpy", "dtype"): scalar_type,
}


class RestrictedUnpickler(pickle._Unpickler):  # type: ignore[misc, name-defined]
    """Accepts only HARMLESS and torch modules, as placeholders.

    The pure Python implementation allocates only what it has read; the C one trusts declared sizes.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Our function for a name in the pickle; raises PublishedFileError for any other name."""
        if (module, name) in HARMLESS:
            return HARMLESS[module, name]
        if module.startswith("torch.nn.modules.") and name.isidentifier():
            return type(name, (PublishedModule,), {"class_name": name, "state": {}})
        raise PublishedFileError(f"it asks for {module}.{name}, which is not needed for networks and is not run")


class StorageHeader(pickle._Unpickler):  # type: ignore[misc, name-defined]
    """Reads what a torch archive declares about its storage, looking up nothing."""

    def find_class(self, module: str, name: str) -> str:
        """The bare name of a storage class; raises PublishedFileError for any other name."""
        if module == "torch" and name.endswith("Storage"):
            return name
        raise PublishedFileError(f"a torch archive inside asks for {module}.{name}")

    def persistent_load(self, key: Any) -> Any:
        """The declaration (kind, storage class, key, device, number of elements, ...)."""
        return key


def check_storage_size(data: bytes) -> None:
    """Raise PublishedFileError if a torch archive declares more numbers than it has bytes."""
    stream = io.BytesIO(data)
    declared: Any = None
    for _ in range(4):  # magic number, protocol, system, storage
        declared = StorageHeader(stream).load()
    if not isinstance(declared, tuple) or len(declared) < 5 or not isinstance(declared[4], int):
        raise PublishedFileError("a torch archive inside that holds no storage")
    if not 0 <= declared[4] <= len(data):
        raise PublishedFileError(f"a torch archive inside declares {declared[4]} numbers in {len(data)} bytes")


def read_published(path: str | Path) -> dict[str, Any]:
    """The top-level dictionary of a published checkpoint, networks as PublishedModule. Raises PublishedFileError."""
    path = Path(path)
    try:
        content = RestrictedUnpickler(io.BytesIO(path.read_bytes())).load()
    except PublishedFileError as error:
        raise PublishedFileError(f"{path}: refused: {error}") from error
    except Exception as error:  # a damaged pickle can fail anywhere in the little machine that reads it
        raise PublishedFileError(f"{path}: not a checkpoint, or damaged ({type(error).__name__}: {error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("G_ema"), PublishedModule):
        raise PublishedFileError(f"{path}: this is not a checkpoint of the published program: it has no network G_ema")
    return content
