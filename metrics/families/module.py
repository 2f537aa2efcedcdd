"""Frechet and kernel distance of the features of a user's own network, for any number of generated images."""

from pathlib import Path

import torch

from metrics.detectors import BuildContext, DetectorKind
from metrics.distances import kernel
from metrics.families import inception as inception_metrics
from metrics.families import proxy
from metrics.families.module_detector import ModuleDetector, load_module, open_module
from metrics.features import Keep
from metrics.metric import Family, Metric, RealUse
from metrics.weights.published import Source

DETECTOR = "module"  # also the key in Source.paths of the file named by --detector-module

_FEATURES = "the features of the network given by --detector-module; all real images, none flipped"


def prepare_module(source: Source) -> None:
    """Load the network once, on the CPU; raises ValueError where that fails. It runs the code in the file."""
    load_module(_path(source), torch.device("cpu"))


def build_module(context: BuildContext) -> ModuleDetector:
    """Return the detector; raises ValueError where its file is missing or unusable. It runs the code in the file."""
    return open_module(_path(context.weights), context.device, context.real.image_shape)


def _path(source: Source) -> Path:
    path = source.paths.get(DETECTOR)
    if path is None:
        raise ValueError(
            "metrics fd_module and kd_module take a network of yours: give --detector-module=FILE, TorchScript or an "
            "exported program that turns images, uint8 [n, 3, height, width], into floats [n, features]"
        )
    return path


def _frechet(num_gen: int) -> Metric:
    return Metric(
        definition=f"Frechet distance (covariance with ddof {proxy.DDOF}) of {_FEATURES}, against {num_gen:,} generated "
        f"ones",
        detector=DETECTOR,
        num_gen=num_gen,
        keep=Keep.MOMENTS,
        real=RealUse(Keep.MOMENTS),
        check=proxy.check_any,
        measure=proxy.measure_distance,
        comparable_to_published=False,
    )


def _kernel(num_gen: int) -> Metric:
    return Metric(
        definition=f"kernel distance (cubic, unbiased, mean of {kernel.NUM_SUBSETS} subsets of up to "
        f"{kernel.MAX_SUBSET:,}) of {_FEATURES}, against {num_gen:,} generated ones",
        detector=DETECTOR,
        num_gen=num_gen,
        keep=Keep.ROWS,
        real=RealUse(Keep.ROWS),
        check=inception_metrics.check_two,
        measure=inception_metrics.measure_kid,
        comparable_to_published=False,
    )


DETECTORS = {DETECTOR: DetectorKind(build_module, prepare_module)}

FAMILIES = (
    Family("fd_module_{count}_full", min_gen=2, make=_frechet),
    Family("kd_module_{count}_full", min_gen=2, make=_kernel),
)
