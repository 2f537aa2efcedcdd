"""What measuring keeps between runs: named arrays in the cache folder, found by what they were computed from."""

import hashlib
import json
import os
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from dnnlib.files import atomic_write
from dnnlib.paths import user_path

CacheKey = Mapping[str, str | int | float | bool]  # everything that the arrays depend on

_KEY_NAME = "cache_key"  # the array that repeats the key inside the file
_PROVENANCE_NAME = "provenance"


def default_folder() -> Path:
    """Return $STYLEFORMER_CACHE_DIR, or ~/.cache/styleformer."""
    return user_path(os.environ.get("STYLEFORMER_CACHE_DIR") or "~/.cache/styleformer")


def load(folder: Path, kind: str, key: CacheKey, wanted: Iterable[str] | None = None) -> dict[str, np.ndarray] | None:
    """Return arrays saved under this kind and key, all or the wanted ones; None where one is missing or damaged."""
    path = _path(folder, kind, key)
    try:
        with np.load(path) as archive:
            present = _own_names(archive)
            chosen = present if wanted is None else frozenset(wanted)
            if str(archive[_KEY_NAME]) != _text(key) or not chosen <= present:
                return None
            return {name: archive[name] for name in chosen}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        warnings.warn(f"{path} cannot be read ({error}); computing its content again", stacklevel=2)
        return None


def names(folder: Path, kind: str, key: CacheKey) -> frozenset[str]:
    """Return the names of the arrays saved under this kind and key; none where the file is missing or damaged."""
    try:
        with np.load(_path(folder, kind, key)) as archive:
            return _own_names(archive)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        return frozenset()


def save(
    folder: Path,
    kind: str,
    key: CacheKey,
    arrays: Mapping[str, np.ndarray],
    provenance: Mapping[str, str] | None = None,  # for people: where the arrays come from
) -> None:
    """Keep arrays for `load`; a folder that cannot be written costs a warning, not the measurement."""
    path = _path(folder, kind, key)
    texts = {_KEY_NAME: np.array(_text(key)), _PROVENANCE_NAME: np.array(json.dumps(dict(provenance or {})))}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            np.savez(file, **arrays, **texts)  # type: ignore[arg-type]
    except OSError as error:
        warnings.warn(
            f"{path} cannot be written ({error}); set STYLEFORMER_CACHE_DIR to a folder of yours", stacklevel=2
        )


def _own_names(archive: NpzFile) -> frozenset[str]:
    return frozenset(archive.files) - {_KEY_NAME, _PROVENANCE_NAME}


def _path(folder: Path, kind: str, key: CacheKey) -> Path:
    return folder / f"{kind}-{hashlib.sha256(_text(key).encode()).hexdigest()[:20]}.npz"


def _text(key: CacheKey) -> str:
    return json.dumps(dict(key), sort_keys=True)
