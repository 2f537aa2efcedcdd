"""Reads files of weights without running what is in them, and checks that they are of the expected network."""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

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
    return zip_has(path, "/constants.pkl")


def zip_has(path: Path, ending: str) -> bool:
    """Return whether a file is a zip with a name of this ending."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(ending) for name in archive.namelist())


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


Network = TypeVar("Network", bound=nn.Module)


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a .pth state or a TorchScript archive; raises ValueError for any other file."""
    try:
        state = read_tensors(path) if is_torchscript(path) else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises almost anything, with torch's advice to run what is in it
        own_words = str(error).split("\n")[0] if isinstance(error, OSError | ForbiddenName) else ""
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) is not a file of weights, or damaged: "
            f"{own_words or 'it has no state_dict of plain tensors that can be read; download it again'}"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} has a {type(state).__name__} where named tensors are expected")
    return state


def check_names(path: Path, what: str, expected: Set[str], found: Set[str]) -> None:
    """Raise ValueError unless a file's tensors have the names expected; `what` names the network."""
    for problem, names in (("lacks", expected - found), ("also has", found - expected)):
        if names:
            raise ValueError(
                f"{path} is not {what}: of {len(expected)} tensors expected it has {len(expected & found)}; it {problem} "
                f"{min(names, key=str)!r}"
            )


def check_state(path: Path, what: str, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless a file's tensors have the names, shapes and types of `expected` and finite values.

    Of `expected` only that is looked at, so it may be on the meta device; `what` names the network in messages.
    """
    check_names(path, what, expected.keys(), state.keys())
    for name, tensor in expected.items():
        found = state[name]
        if not isinstance(found, Tensor) or (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            described = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"{path}: {name} is {described}, not {tensor.dtype} {list(tensor.shape)}")
        if not torch.stack(found.aminmax()).isfinite().all():  # NaN shows in both; nothing of the tensor's size is made
            raise ValueError(f"{path}: {name} has values that are not finite (NaN or infinite)")


def expected_state(build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """Return names, shapes and types of a network's state, on the meta device: no memory, no random numbers."""
    with torch.device("meta"):
        return build().state_dict()


def with_state(build: Callable[[], Network], state: Mapping[str, Tensor]) -> Network:
    """Return a network with this state and without gradients."""
    with torch.device("meta"):
        network = build()
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False)
