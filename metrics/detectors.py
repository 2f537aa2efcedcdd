"""What turns images into features: the interface of all detectors, and how one is run and named."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from metrics.images import Progress, RealImages
from metrics.weights.published import Source, WeightsFile


class Detector(Protocol):
    """A fixed network that describes each image by a row of numbers."""

    @property
    def name(self) -> str:
        """Tells it from other detectors, its version included."""

    @property
    def digest(self) -> str:
        """The sha256 of its weights."""

    @property
    def resize(self) -> str:
        """How it brings images to the size of its network; "none" = it takes any size."""

    @property
    def is_published(self) -> bool:
        """Whether its weights are those that published numbers come from."""

    @property
    def dim(self) -> int:
        """Features an image."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return features, float32 [n, dim], of images on its device, uint8 [n, channels, height, width]."""


@dataclass(frozen=True)
class BuildContext:
    """What a detector may need to come into being."""

    real: RealImages  # the real set of the evaluation
    device: torch.device
    cache_folder: Path
    weights: Source
    progress: Progress


def _needs_nothing(source: Source) -> None:
    pass


@dataclass(frozen=True)
class DetectorKind:
    """How a detector comes into being."""

    build: Callable[[BuildContext], Detector]
    prepare: Callable[[Source], None] = _needs_nothing  # puts its weights in place and tries them
    files: tuple[WeightsFile, ...] = ()  # the published weights it takes


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the sha256 of named tensors: names, shapes and little-endian values."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = weights[name].detach().cpu().numpy()
        digest.update(f"{name} {array.dtype.name} {list(array.shape)}\n".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Compute in plain float32 without gradients: no TF32, no autocast, no benchmark that may change the algorithm."""
    matmul_tf32 = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with (
            torch.no_grad(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
            torch.autocast("cuda", enabled=False),
            torch.autocast("cpu", enabled=False),
        ):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul_tf32
