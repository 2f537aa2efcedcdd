"""Frechet and kernel distance of the features of a user's own network. Loading and calling it RUNS THE CODE in its file."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dnnlib.files import file_sha256
from metrics.detectors import BuildContext, Detector, DetectorKind, full_precision
from metrics.families import proxy
from metrics.families.inception import frechet_metric, kernel_metric
from metrics.metric import Family
from metrics.weights.published import Source
from metrics.weights.reading import is_torchscript, zip_has

Network = Callable[[Tensor], object]

DETECTOR = "module"  # also the key in Source.paths of the file named by --detector-module

_FEATURES = "the features of the network given by --detector-module; all real images, none flipped"
_TRIED_COUNTS = (2, 3, 1)  # images at once; the last batch of a set may have one
_SAME = 1e-3  # relative to the largest feature: how far those of an image may depend on the others in the batch
_DYNAMIC_BATCH = (
    "A network exported for one batch size only is exported for any by torch.export.export(network, (images,), "
    "dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)) with two or more example images"
)


def prepare_module(source: Source) -> None:
    """Load the network once, on the CPU; raises ValueError where that fails. It runs the code in the file."""
    load_module(_path(source), torch.device("cpu"))


def build_module(context: BuildContext) -> Detector:
    """Return the network of a file as a detector, tried on a few random images. It runs the code in the file.

    Raises ValueError for a missing or unusable file, and for a network that fails on such images, or on some numbers of
    them, or returns something else than finite floats [n, features] that do not depend on the rest of the batch.
    """
    path = _path(context.weights)
    network = load_module(path, context.device)
    with full_precision():
        dim = _try(path, network, context.device, context.real.image_shape)

    def features(images: Tensor) -> Tensor:
        found = network(_as_rgb(images))
        assert isinstance(found, Tensor)  # as when tried
        return found.float()

    return Detector(f"module:{path.name}", features, dim, file_sha256(path), resize="own")


def _path(source: Source) -> Path:
    path = source.paths.get(DETECTOR)
    if path is None:
        raise ValueError(
            "metrics fd_module and kd_module take a network of yours: give --detector-module=FILE, TorchScript or an "
            "exported program that turns images, uint8 [n, 3, height, width], into floats [n, features]"
        )
    return path


def load_module(path: Path, device: torch.device) -> Network:
    """Return the network of a TorchScript file or an exported program, told apart by content. It runs the code in the file.

    Raises ValueError for a missing file, and for one that is neither.
    """
    if not path.is_file():
        raise ValueError(f"--detector-module={path}: there is no such file")
    try:
        with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated, which its users know
            if is_torchscript(path):
                return torch.jit.load(path, map_location=device).eval()
            if zip_has(path, "/archive_format"):
                return _load_exported(path, device)
    except Exception as error:  # a damaged file raises almost anything
        raise ValueError(f"--detector-module={path} cannot be loaded: {_reason(error)}") from error
    raise ValueError(
        f"--detector-module={path} is neither TorchScript nor an exported program; write it by torch.jit.save or "
        f"torch.export.save (torch.save keeps weights, but not the program)"
    )


def _load_exported(path: Path, device: torch.device) -> Network:
    from torch.export.passes import move_to_device_pass  # takes a second to import

    with open(path, "rb") as file:  # by path it would insist on the ending .pt2
        program = torch.export.load(file)
    return move_to_device_pass(program, device).module()


def _try(path: Path, network: Network, device: torch.device, image_shape: tuple[int, int, int]) -> int:
    """Return the number of features per image; raises ValueError where something is wrong with them."""
    pixels = np.random.RandomState(0).randint(0, 256, (max(_TRIED_COUNTS), *image_shape), np.uint8)
    images = _as_rgb(torch.from_numpy(pixels).to(device))
    first, *others = [_describe(path, network, images[:count]) for count in _TRIED_COUNTS]
    for features in others:
        a, b = features[: len(first)], first[: len(features)]
        if a.shape != b.shape or (a - b).abs().max() > _SAME * b.abs().max():
            raise ValueError(
                f"--detector-module={path} gives an image other features when other images are in the batch, or at "
                f"random; save the network in eval mode"
            )
    return first.shape[1]


def _describe(path: Path, network: Network, images: Tensor) -> Tensor:
    """Return the features of images; raises ValueError unless they are finite floats [n, features]."""
    count = len(images)
    what = f"--detector-module={path}, given {count} images, uint8 {list(images.shape)},"
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
    """Return the line of an error that tells what is wrong."""
    lines = str(error).strip().split("\n")
    is_trace = "TorchScript interpreter" in lines[0]  # a trace of the program, the reason below it
    return lines[-1 if is_trace else 0] or type(error).__name__


DETECTORS = {DETECTOR: DetectorKind(build_module)}

_FRECHET = replace(
    frechet_metric(DETECTOR, _FEATURES, proxy.DDOF), check=proxy.check_real, measure=proxy.measure_distance
)

FAMILIES = (
    Family("fd_module_{count}_full", replace(_FRECHET, comparable_to_published=False)),
    Family("kd_module_{count}_full", replace(kernel_metric(DETECTOR, _FEATURES), comparable_to_published=False)),
)
