"""Frechet and kernel distance of DINOv2 features, for any number of generated images."""

from metrics.detectors import BuildContext, Detector, DetectorKind
from metrics.distances.frechet import moments_distance
from metrics.families.inception import check_count, kernel_metric
from metrics.features import Keep
from metrics.metric import Family, Inputs, Measurement, Metric, RealUse
from metrics.networks.dinov2 import VIT_L14, load_dinov2, read_dinov2
from metrics.weights.published import DINOV2, require

DETECTOR = "dinov2_vitl14"
DDOF = 1  # of the covariances, as published

_FEATURES = (
    f"{VIT_L14.width:,} DINOv2 ViT-L/14 features (this network is unverified against the published weights); all real "
    f"images, none flipped"
)


def build_dinov2(context: BuildContext) -> Detector:
    """Return the detector, called unpublished until it was tried on the published weights.

    Raises ValueError for missing or unusable weights.
    """
    weights = require(DINOV2, context.weights)
    network = load_dinov2(weights.path).to(context.device)
    resize = f"bicubic_antialias_{network.size.input_px}"
    return Detector(DETECTOR, network, network.size.width, weights.sha256, resize)


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
        check=check_count,
        measure=measure_frechet,
    )


def _kernel(num_gen: int) -> Metric:
    return kernel_metric(DETECTOR, _FEATURES, num_gen)


DETECTORS = {DETECTOR: DetectorKind(build_dinov2, {DINOV2: read_dinov2})}

FAMILIES = (
    Family("fd_dinov2_{count}_full", min_gen=2, make=_frechet),
    Family("kd_dinov2_{count}_full", min_gen=2, make=_kernel),
)
