"""Frechet and kernel distance of DINOv2 features, for any number of generated images."""

from torch import Tensor

from metrics.detectors import BuildContext, DetectorKind
from metrics.distances import kernel
from metrics.distances.frechet import moments_distance
from metrics.families import inception as inception_metrics
from metrics.features import Keep
from metrics.metric import Family, Inputs, Measurement, Metric, RealUse
from metrics.networks.dinov2 import VIT_L14, Dinov2, load_dinov2, read_dinov2
from metrics.weights.published import DINOV2, Source, Weights, obtain, require

DETECTOR = "dinov2_vitl14"
DDOF = 1  # of the covariances, as published

_FEATURES = (
    f"{VIT_L14.width:,} DINOv2 ViT-L/14 features (this network is unverified against the published weights); all real "
    f"images, none flipped"
)


class Dinov2Detector:
    """The transformer with the weights of one file; unverified against the published weights."""

    name = DETECTOR

    def __init__(self, network: Dinov2, weights: Weights) -> None:
        self.network = network
        self.dim = network.size.width
        self.resize = f"bicubic_antialias_{network.size.input_px}"
        self.digest = weights.sha256  # of the file: what other programs' users know it by
        self.is_published = False  # until this network was tried on the published weights

    def __call__(self, images: Tensor) -> Tensor:
        """Return features, float32 [n, 1024], of images, uint8 [n, 1 or 3, height, width]."""
        return self.network(images)


def prepare_dinov2(source: Source) -> None:
    """Put the weights in place and read them once; raises ValueError where that fails."""
    read_dinov2(obtain(DINOV2, source).path)


def build_dinov2(context: BuildContext) -> Dinov2Detector:
    """Return the detector; raises ValueError where its weights are not here or unusable."""
    weights = require(DINOV2, context.weights)
    return Dinov2Detector(load_dinov2(weights.path).to(context.device), weights)


def measure_frechet(inputs: Inputs) -> Measurement:
    """Return the Frechet distance of the features of real and generated images."""
    real, fake = inputs.both
    return Measurement(moments_distance(real.moments, fake.moments, DDOF), settings={"ddof": DDOF})


def _frechet(num_gen: int) -> Metric:
    return Metric(
        definition=f"Frechet distance (covariance with ddof {DDOF}) of {_FEATURES}, against {num_gen:,} generated ones",
        detector=DETECTOR,
        num_gen=num_gen,
        keep=Keep.MOMENTS,
        real=RealUse(Keep.MOMENTS),
        check=inception_metrics.check_two,
        measure=measure_frechet,
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
    )


DETECTORS = {DETECTOR: DetectorKind(build_dinov2, prepare_dinov2, (DINOV2,))}

FAMILIES = (
    Family("fd_dinov2_{count}_full", min_gen=2, make=_frechet),
    Family("kd_dinov2_{count}_full", min_gen=2, make=_kernel),
)
