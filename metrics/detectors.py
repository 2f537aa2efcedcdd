"""What turns images into features: a detector, and how it is built."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from metrics.images import Progress, RealImages
from metrics.weights.published import Source, WeightsFile, obtain


@dataclass(frozen=True)
class Detector:
    """A fixed network that turns each image into a row of features."""

    name: str  # unique, with a version
    network: Callable[[Tensor], Tensor]  # uint8 [n, channels, height, width] -> float32 [n, dim], on one device
    dim: int  # features per image
    digest: str  # sha256 of the weights; of the file, where they come from one
    resize: str  # how images are resized to the size of the network; "none" = it takes any size
    is_published: bool = False  # the weights are those that published numbers come from


@dataclass(frozen=True)
class BuildContext:
    real: RealImages  # the real set of the evaluation
    device: torch.device
    weights: Source
    progress: Progress


@dataclass(frozen=True)
class DetectorKind:
    """How a detector is built, and the files of published weights it takes."""

    build: Callable[[BuildContext], Detector]
    readers: Mapping[WeightsFile, Callable[[Path], object]] = field(default_factory=dict)  # raise ValueError

    def prepare(self, source: Source) -> None:
        """Obtain the weights and read them once; raises ValueError where that fails."""
        for file, read in self.readers.items():
            read(obtain(file, source).path)


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
    """Compute in float32 without gradients: no TF32, no autocast, no benchmark that may change the algorithm."""
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
