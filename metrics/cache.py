"""Named arrays that are kept between runs in the cache folder, found by what they were computed from."""

import hashlib
import json
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dnnlib.files import atomic_write
from dnnlib.paths import user_path

CacheKey = Mapping[str, str | int | float | bool]  # everything that the arrays depend on

_KEY = "cache_key"  # the array with the key, in the file


def default_folder() -> Path:
    """Return $STYLEFORMER_CACHE_DIR, or ~/.cache/styleformer."""
    return user_path(os.environ.get("STYLEFORMER_CACHE_DIR") or "~/.cache/styleformer")


def load(folder: Path, kind: str, key: CacheKey) -> dict[str, np.ndarray] | None:
    """Return the arrays saved under this kind and key; None where there are none, or the file is damaged."""
    path = _path(folder, kind, key)
    try:
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in archive.files}
        arrays.pop("provenance", None)  # of older versions
        return arrays if str(arrays.pop(_KEY)) == _text(key) else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        warnings.warn(f"{path} cannot be read ({error}); computing its content again", stacklevel=2)
        return None


def save(folder: Path, kind: str, key: CacheKey, arrays: Mapping[str, np.ndarray]) -> None:
    """Keep arrays for `load`; a folder that cannot be written costs a warning, not the measurement."""
    path = _path(folder, kind, key)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            np.savez(file, **arrays, **{_KEY: np.array(_text(key))})  # type: ignore[arg-type]
    except OSError as error:
        warnings.warn(
            f"{path} cannot be written ({error}); name a folder of yours with calc_metrics.py --cache or "
            f"$STYLEFORMER_CACHE_DIR",
            stacklevel=2,
        )


def _path(folder: Path, kind: str, key: CacheKey) -> Path:
    return folder / f"{kind}-{hashlib.sha256(_text(key).encode()).hexdigest()[:20]}.npz"


def _text(key: CacheKey) -> str:
    return json.dumps(dict(key), sort_keys=True)
