"""A user's own network as a detector. It is a program: loading and calling it RUNS THE CODE in its file."""

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dnnlib.files import file_sha256
from metrics.detectors import full_precision
from metrics.weights.torchscript import is_torchscript

Network = Callable[[Tensor], object]

_TRIED_COUNTS = (2, 3, 1)  # images at once; the last batch of a set may have one
_SAME = 1e-3  # relative to the largest feature: how far those of an image may depend on the others in the batch
_DYNAMIC_BATCH = (
    "A network exported for one batch size only is exported for any by torch.export.export(network, (images,), "
    "dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)) with two or more example images"
)


class ModuleDetector:
    """A network that takes images, uint8 [n, 3, height, width] (grey repeated), and returns float [n, features]."""

    resize = "own"
    is_published = False

    def __init__(self, path: Path, network: Network, dim: int) -> None:
        self.name = f"module:{path.name}"
        self.digest = file_sha256(path)
        self.dim = dim
        self._network = network

    def __call__(self, images: Tensor) -> Tensor:
        """Return features, float32 [n, dim], of images, uint8 [n, 1 or 3, height, width]."""
        features = self._network(_as_rgb(images))
        assert isinstance(features, Tensor)  # as in the trial
        return features.float()


def open_module(path: Path, device: torch.device, image_shape: tuple[int, int, int]) -> ModuleDetector:
    """Return the network of a file as a detector, tried on a few random images. It runs the code in the file.

    Args:
        path: TorchScript (torch.jit.save) or an exported program (torch.export.save), whatever the file's name.
        device: Where it is to run.
        image_shape: (channels, height, width) of the images it will see; channels 1 or 3.

    Raises:
        ValueError: There is no such file; it is neither; it fails on such images, or on some numbers of them; it
            returns something else than finite floats [n, features], or features that depend on the rest of the batch.
    """
    network = load_module(path, device)
    with full_precision():
        dim = _try(path, network, device, image_shape)
    return ModuleDetector(path, network, dim)


def load_module(path: Path, device: torch.device) -> Network:
    """Return the network of a file, in eval mode where the file allows it. It runs the code in the file.

    Raises ValueError for a missing file, and for one that is neither TorchScript nor an exported program.
    """
    if not path.is_file():
        raise ValueError(f"--detector-module={path}: there is no such file")
    try:
        with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated, which its users know
            if is_torchscript(path):
                return torch.jit.load(path, map_location=device).eval()
            if _is_exported(path):
                return _load_exported(path, device)
    except Exception as error:  # a damaged file raises almost anything
        raise ValueError(f"--detector-module={path} cannot be loaded: {_reason(error)}") from error
    raise ValueError(
        f"--detector-module={path} is neither TorchScript nor an exported program; write it by torch.jit.save or "
        f"torch.export.save (torch.save keeps weights, but not the program)"
    )


def _is_exported(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/archive_format") for name in archive.namelist())


def _load_exported(path: Path, device: torch.device) -> Network:
    from torch.export.passes import move_to_device_pass  # takes a second to import

    with open(path, "rb") as file:  # by path it would insist on the ending .pt2
        program = torch.export.load(file)
    return move_to_device_pass(program, device).module()


def _try(path: Path, network: Network, device: torch.device, image_shape: tuple[int, int, int]) -> int:
    """Return the number of features of an image; raises ValueError where something is wrong with them."""
    channels, height, width = image_shape
    pixels = np.random.RandomState(0).randint(0, 256, (max(_TRIED_COUNTS), channels, height, width), np.uint8)
    images = _as_rgb(torch.from_numpy(pixels).to(device))
    found = [_describe(path, network, images[:count]) for count in _TRIED_COUNTS]
    for features in found[1:]:
        shared = min(len(features), len(found[0]))
        a, b = features[:shared], found[0][:shared]
        if a.shape != b.shape or (a - b).abs().max() > _SAME * b.abs().max():
            raise ValueError(
                f"--detector-module={path} gives an image other features when other images are in the batch, or at "
                f"random; save the network in eval mode"
            )
    return found[0].shape[1]


def _describe(path: Path, network: Network, images: Tensor) -> Tensor:
    """Return the features of images; raises ValueError where they are none."""
    count, _, height, width = images.shape
    what = f"--detector-module={path}, given {count} images, uint8 [{count}, 3, {height}, {width}],"
    try:
        features = network(images)
    except Exception as error:  # the user's code may raise anything
        hint = "" if isinstance(network, torch.jit.ScriptModule) else f".\n{_DYNAMIC_BATCH}"
        raise ValueError(f"{what} fails: {_reason(error)}{hint}") from error
    if not isinstance(features, Tensor):
        raise ValueError(f"{what} returns a {type(features).__name__} instead of a tensor")
    if features.ndim != 2 or len(features) != count or features.shape[1] == 0 or not features.is_floating_point():
        raise ValueError(
            f"{what} returns {features.dtype} {list(features.shape)} instead of floats [{count}, features]"
        )
    if not features.isfinite().all():
        raise ValueError(f"{what} returns numbers that are not finite (NaN or infinite)")
    return features.float()


def _as_rgb(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1).contiguous()


def _reason(error: Exception) -> str:
    """Return the line of an error that says what is wrong."""
    lines = str(error).strip().split("\n")
    is_trace = "TorchScript interpreter" in lines[0]  # a trace of the program, the reason below it
    return lines[-1 if is_trace else 0] or type(error).__name__
