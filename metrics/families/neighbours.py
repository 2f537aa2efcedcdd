"""Precision and recall, density and coverage, for any number of generated images."""

from collections.abc import Callable
from functools import partial

from metrics.detectors import BuildContext, Detector, DetectorKind
from metrics.distances import neighbours
from metrics.families import inception as inception_metrics
from metrics.features import Keep
from metrics.metric import GENERATED, Family, Inputs, Measurement, Metric, RealUse, Setting, check_count
from metrics.networks.vgg16 import FEATURES, INPUT_PX, is_proven, load_vgg16, read_vgg16
from metrics.weights.published import VGG16, require

DETECTOR = "vgg16"
PR_NEIGHBOUR = 3
PR_REAL = 200_000  # images at most, as published
DC_NEIGHBOUR = 5
DC_REAL = 10_000


def build_vgg16(context: BuildContext) -> Detector:
    weights = require(VGG16, context.weights)
    network = load_vgg16(weights.path).to(context.device)
    return Detector(DETECTOR, network, FEATURES, weights.sha256, f"tensorflow1_bilinear_{INPUT_PX}", is_proven(weights))


def measure_precision_recall(inputs: Inputs) -> Measurement:
    """Return precision as the value, with recall beside it."""
    real, fake = inputs.both
    precision, recall = neighbours.precision_recall(real.rows, fake.rows, PR_NEIGHBOUR, inputs.device)
    return Measurement(
        precision, details={"precision": precision, "recall": recall}, settings=_settings(PR_NEIGHBOUR, PR_REAL)
    )


def measure_density_coverage(inputs: Inputs) -> Measurement:
    """Return coverage as the value, with density beside it."""
    real, fake = inputs.both
    density, coverage = neighbours.density_coverage(real.rows, fake.rows, DC_NEIGHBOUR, inputs.device)
    return Measurement(
        coverage, details={"density": density, "coverage": coverage}, settings=_settings(DC_NEIGHBOUR, DC_REAL)
    )


def _settings(k: int, max_real: int) -> dict[str, Setting]:
    return {"k": k, "edge_included": True, "max_real": max_real, "distances": "float64"}


def _metric(what: str, detector: str, measure: Callable[[Inputs], Measurement], k: int, max_real: int) -> Metric:
    real = RealUse(Keep.ROWS, max_count=max_real)
    definition = (
        f"{what} with balls up to neighbour {k}; the first {max_real:,} real images, none flipped, against {GENERATED} ones; "
        f"higher is better"
    )
    return Metric(
        definition, detector, measure, real=real, check=partial(check_count, least=k + 1), higher_is_better=True
    )


_PR = f"precision, beside it recall, of {FEATURES:,} VGG16 features"
_DC = "coverage, beside it density, of Inception features"
PR = _metric(_PR, DETECTOR, measure_precision_recall, PR_NEIGHBOUR, PR_REAL)
DC = _metric(_DC, inception_metrics.DETECTOR, measure_density_coverage, DC_NEIGHBOUR, DC_REAL)

FAMILIES = (
    Family("pr{count}3_full", PR, min_gen=PR_NEIGHBOUR + 1),
    Family("dc{count}5_full", DC, min_gen=1, standard_count="10k"),
)

DETECTORS = {DETECTOR: DetectorKind(build_vgg16, {VGG16: read_vgg16})}
