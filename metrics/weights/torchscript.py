"""Reads the tensors of a TorchScript archive. The program inside is never loaded: unknown types become inert records."""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


class ForbiddenName(pickle.UnpicklingError):
    """A file asks for something that no archive of weights needs."""


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive: a zip with a table of the program's constants."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the parameters and buffers of a TorchScript archive by dotted name; raises pickle.UnpicklingError."""
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise pickle.UnpicklingError(f"it has {len(pickles)} files data.pkl where one is expected")
        with archive.open(pickles[0]) as file:
            root = _Reader(file, archive, pickles[0].removesuffix(".pkl")).load()
    return dict(_tensors(root, ""))


class _Record:
    """An object of the archive's program, of which only the attributes are of interest."""

    def __init__(self, *arguments: object) -> None:
        self.attributes: dict[str, object] = {}

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.attributes = state


class _Reader(pickle.Unpickler):
    """Knows a few harmless names; storages are read from the archive's folder of data."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive, self._folder = archive, folder
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Record
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) not in _KNOWN:
            raise ForbiddenName(f"it asks for {module}.{name}, which no archive of weights needs")
        return _KNOWN[module, name]

    def persistent_load(self, identifier: Any) -> Tensor:
        _, dtype, key, _, count = identifier
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._folder}/{key}"))
            self._storages[key] = torch.frombuffer(data, dtype=dtype, count=count) if count else torch.empty(0)
        return self._storages[key]


def _rebuild(storage: Tensor, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    return storage.as_strided(shape, stride, offset).clone()


def _same(value: object, *_: object) -> object:
    return value


_KNOWN: dict[tuple[str, str], Callable[..., object]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): _same,
    **{("torch.jit._pickle", f"build_{kind}list"): _same for kind in ("int", "double", "bool", "tensor")},
    ("torch.jit._pickle", "restore_type_tag"): _same,
}


def _tensors(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, _Record):
        for attribute, child in value.attributes.items():
            yield from _tensors(child, f"{name}.{attribute}" if name else attribute)
