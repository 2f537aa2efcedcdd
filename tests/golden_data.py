"""Loads the recorded tensors in tests/data that prove equality with the published implementation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

DATA = Path(__file__).parent / "data"


def lattice(shape: list[int], seed: int, scale: float) -> np.ndarray:
    """The recorded pseudo-random tensor of this shape and seed, float32 in -scale..scale, by integer arithmetic alone."""
    i = np.arange(int(np.prod(shape)), dtype=np.int64)
    steps = (i * i % 1_000_003 * 7919 + i * 104_729 + seed * 15_485_863) % 2001 - 1000
    return (steps.astype(np.float64) / 1000.0 * scale).astype(np.float32).reshape(shape)


def load(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Config, parameters by published name, and recorded arrays of tests/data/<name>.npz; float16 becomes float32."""
    config: dict[str, Any] = {}
    params: dict[str, np.ndarray] = {}
    data: dict[str, np.ndarray] = {}
    with np.load(DATA / f"{name}.npz") as archive:
        config = json.loads(str(archive["config"]))
        for key in archive.files:
            if key == "config":
                continue
            array = archive[key]
            array = array.astype(np.float32) if array.dtype == np.float16 else array
            target, key = (params, key[len("param:") :]) if key.startswith("param:") else (data, key)
            target[key] = array
    for key, recipe in config.get("recipes", {}).items():
        params[key] = lattice(recipe["shape"], recipe["seed"], recipe["scale"])
    for alias, source in config.get("aliases", {}).items():
        params[alias] = params[source]
    return config, params, data


def arrays(name: str) -> dict[str, np.ndarray]:
    """The recorded arrays of tests/data/<name>.npz, as they are."""
    with np.load(DATA / f"{name}.npz") as archive:
        return dict(archive)


def relative_error(actual: torch.Tensor, recorded: np.ndarray | torch.Tensor) -> float:
    """The largest difference over the largest recorded value."""
    expected = torch.as_tensor(recorded)
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} is not {tuple(expected.shape)}"
    return ((actual - expected).abs().max() / expected.abs().max()).item()
