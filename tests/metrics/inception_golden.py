"""Recorded images, and random weights of the Inception network, the same on every machine, that they were seen with."""

import hashlib
import json
import math
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from golden_data import DATA, arrays
from torch import Tensor

from metrics.detectors import Detector
from metrics.networks.inception import InceptionV3
from metrics.results import MetricResult

DIGEST = "69961a1d2772c41561d50307936d9a9561a4903cef4537f87d216a89d6af3193"
NAMES = ["fid64_full", "kid64_full", "is64"]


@dataclass(frozen=True)
class Evaluation:
    """What one pass over 64 real and 64 generated images gave."""

    results: dict[str, MetricResult]
    real_rows: Tensor  # features, [64, 2048]
    fake_rows: Tensor
    detector: Detector
    passes: tuple[int, int]  # over the real and over the generated images


def logits_of(evaluation: Evaluation) -> Tensor:
    """Class scores of the generated images."""
    assert isinstance(evaluation.detector.network, InceptionV3)
    return evaluation.detector.network.logits(evaluation.fake_rows)


def save_archive(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    """Write a TorchScript archive with tensors of these dotted names."""
    root = torch.nn.Module()
    for name, tensor in tensors.items():
        *parents, leaf = name.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, torch.nn.Module())
            module = module.get_submodule(parent)
        module.register_buffer(leaf, tensor)
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(root), path)
    return path


def recorded_features(case: str) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Real and generated features, and the values that other programs have for them."""
    found = arrays("metrics/features_v1")
    values = json.loads((DATA / "metrics/features_v1.json").read_text())
    return torch.from_numpy(found[f"{case}_real"]), torch.from_numpy(found[f"{case}_gen"]), values


def recorded_images(which: str) -> Tensor:
    """The recorded images "a" (real) or "b" (generated), uint8 [64, 3, 32, 32]."""
    return torch.from_numpy(arrays(f"metrics/images_{which}_v1")["images"])


def random_state() -> dict[str, Tensor]:
    """The state; every tensor follows from its name and shape alone."""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in InceptionV3().state_dict().items()}
    return {name: torch.from_numpy(_draw(name, shape)) for name, shape in shapes.items()}


def digest(state: Mapping[str, Tensor]) -> str:
    """The recorded kind of hash: names, shapes as Python writes them, values."""
    sha256 = hashlib.sha256()
    for name in sorted(state):
        array = state[name].numpy()
        sha256.update(f"{name}{array.shape or (1,)}".encode())  # a scalar counts as a row of one
        sha256.update(memoryview(array))
    return sha256.hexdigest()


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.RandomState([0, zlib.crc32(name.encode())])
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("bn.weight"):
        return np.ones(shape, np.float32)
    if name.endswith("running_var"):
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    if name == "fc.weight":
        std = 4 / math.sqrt(shape[1])
    elif name.endswith("conv.weight"):
        std = math.sqrt(2 / math.prod(shape[1:]))
    else:
        std = 0.5 if name == "fc.bias" else 0.1
    return (random.standard_normal(shape) * std).astype(np.float32)
