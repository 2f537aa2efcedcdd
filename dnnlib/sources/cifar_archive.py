"""Reads `cifar-10-python.tar.gz` as its authors publish it, without executing anything in its pickles."""

import io
import pickle
from typing import Any

import numpy as np

from dnnlib.sources.tar_files import TarFiles

_TRAIN_MEMBERS = [f"data_batch_{number}" for number in range(1, 6)]
_META_MEMBER = "batches.meta"
_SHAPE = (3, 32, 32)
_MAX_BYTES = 2**26  # of a member; a batch has 31 MB


def read_cifar10(archive: TarFiles) -> tuple[np.ndarray, list[int], list[str]]:
    """Return the training images, their labels and the class names.

    Returns:
        uint8 [count, height, width, channels] in the order of the batches; class indexes; names by class index.

    Raises:
        ValueError: Not this archive, damaged, or with something in a pickle that arrays and text do not need.
    """
    path = archive.path
    members = _read_members(archive, [*_TRAIN_MEMBERS, _META_MEMBER])
    class_names = _class_names(_load(members[_META_MEMBER], f"{_META_MEMBER} in {path}"), f"{_META_MEMBER} in {path}")
    images, labels = [], []
    for name in _TRAIN_MEMBERS:
        origin = f"{name} in {path}"
        batch_images, batch_labels = _batch(_load(members[name], origin), len(class_names), origin)
        images.append(batch_images)
        labels.extend(batch_labels)
    return np.concatenate(images), labels, class_names


def _read_members(archive: TarFiles, names: list[str]) -> dict[str, bytes]:
    missing = [name for name in names if not archive.exists(name)]
    if missing:
        raise ValueError(
            f"{archive.path} has no {', '.join(missing)}; the tar files that can be packed are cifar-10-python.tar.gz and "
            f"stl10_binary.tar.gz"
        )
    found = {}
    for name in names:
        with archive.named_errors(name):
            found[name] = archive.read(name, _MAX_BYTES)
    return found


def _batch(content: Any, num_classes: int, origin: str) -> tuple[np.ndarray, list[int]]:
    data, labels = (content.get(b"data"), content.get(b"labels")) if isinstance(content, dict) else (None, None)
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape[1:] == (np.prod(_SHAPE),)):
        raise ValueError(f"{origin} does not hold uint8 images of {np.prod(_SHAPE)} values each")
    if not (isinstance(labels, list) and len(labels) == len(data)):
        raise ValueError(f"{origin} does not hold one label for each of its {len(data)} images")
    if not all(isinstance(label, int) and 0 <= label < num_classes for label in labels):
        raise ValueError(f"{origin} has a label that is no class index 0..{num_classes - 1}")
    return data.reshape(-1, *_SHAPE).transpose(0, 2, 3, 1), labels


def _class_names(content: Any, origin: str) -> list[str]:
    names = content.get(b"label_names") if isinstance(content, dict) else None
    if not (isinstance(names, list) and names and all(isinstance(name, bytes) for name in names)):
        raise ValueError(f"{origin} holds no class names")
    return [name.decode() for name in names]


def _load(content: bytes, origin: str) -> Any:
    try:
        return _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(f"{origin} cannot be read: {error}") from error


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """Stand in for _codecs.encode, which pickles of old protocols call to make bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r} are refused")
    return text.encode("latin1")


def _uint8(code: bytes | str, align: object, copy: object) -> np.dtype:
    """Stand in for numpy.dtype: uint8 is all that the archive needs, and newer numpy dislikes its integer flags."""
    if code not in (b"u1", "u1"):
        raise pickle.UnpicklingError(f"arrays of type {code!r} are refused")
    return np.dtype(np.uint8)


class _ArrayUnpickler(pickle.Unpickler):
    """Loads dicts, lists, numbers, bytes and uint8 arrays; refuses everything else by name."""

    _RECONSTRUCT = np.empty(0).__reduce__()[0]  # numpy's maker of arrays, which has moved between modules
    _ALLOWED = {  # noqa: RUF012 - never written to
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): _uint8,
        ("_codecs", "encode"): _latin1_bytes,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which numpy arrays and text do not need; refused"
            )
        return self._ALLOWED[module, name]
