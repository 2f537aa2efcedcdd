"""Frechet and kernel distance of DINOv2 features, for any number of generated images."""

from metrics.detectors import BuildContext, Detector, DetectorKind
from metrics.families.inception import frechet_metric, kernel_metric
from metrics.metric import Family
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


DETECTORS = {DETECTOR: DetectorKind(build_dinov2, {DINOV2: read_dinov2})}

FAMILIES = (
    Family("fd_dinov2_{count}_full", frechet_metric(DETECTOR, _FEATURES, DDOF)),
    Family("kd_dinov2_{count}_full", kernel_metric(DETECTOR, _FEATURES)),
)
