"""Precision and recall, density and coverage, for any number of generated images."""

from functools import partial

from torch import Tensor

from metrics.detectors import BuildContext, DetectorKind
from metrics.distances import neighbours
from metrics.families import inception as inception_metrics
from metrics.features import Keep
from metrics.images import RealImages
from metrics.metric import Family, Inputs, Measurement, Metric, RealUse, Setting
from metrics.networks.vgg16 import FEATURES, INPUT_PX, VGG16
from metrics.networks.vgg16_weights import is_proven, load_vgg16, read_vgg16
from metrics.weights.published import VGG16 as VGG16_FILE
from metrics.weights.published import Source, Weights, obtain, require

DETECTOR = "vgg16"
PR_NEIGHBOUR = 3
PR_REAL = 200_000  # images at most, as published
DC_NEIGHBOUR = 5
DC_REAL = 10_000


class Vgg16Detector:
    """VGG16 with the weights of one file."""

    name = DETECTOR
    dim = FEATURES
    resize = f"tensorflow1_bilinear_{INPUT_PX}"

    def __init__(self, network: VGG16, weights: Weights) -> None:
        self.network = network
        self.digest = weights.sha256  # of the file: what other programs' users know it by
        self.is_published = is_proven(weights)

    def __call__(self, images: Tensor) -> Tensor:
        """Return features, float32 [n, 4096], of images, uint8 [n, 1 or 3, height, width]."""
        return self.network(images)


def prepare_vgg16(source: Source) -> None:
    """Put the weights in place and read them once; raises ValueError where that fails."""
    read_vgg16(obtain(VGG16_FILE, source).path)


def build_vgg16(context: BuildContext) -> Vgg16Detector:
    """Return the detector; raises ValueError where its weights are not here or unusable."""
    weights = require(VGG16_FILE, context.weights)
    return Vgg16Detector(load_vgg16(weights.path).to(context.device), weights)


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


def check_neighbours(real: RealImages, k: int) -> None:
    """Raise ValueError unless there are so many real images that each has a k-th neighbour."""
    if real.count <= k:
        raise ValueError(
            f"the real set has {real.count} images; a metric that looks at neighbour {k} of each takes at least {k + 1}"
        )


def _settings(k: int, max_real: int) -> dict[str, Setting]:
    return {"k": k, "edge_included": True, "max_real": max_real, "distances": "float64"}


def _precision_recall(num_gen: int) -> Metric:
    return Metric(
        definition=f"precision, beside it recall, of {FEATURES:,} VGG16 features with balls up to neighbour "
        f"{PR_NEIGHBOUR}; the first {PR_REAL:,} real images, none flipped, against {num_gen:,} generated ones; higher is "
        f"better",
        detector=DETECTOR,
        num_gen=num_gen,
        keep=Keep.ROWS,
        real=RealUse(Keep.ROWS, max_count=PR_REAL),
        check=partial(check_neighbours, k=PR_NEIGHBOUR),
        measure=measure_precision_recall,
        higher_is_better=True,
    )


def _density_coverage(num_gen: int) -> Metric:
    return Metric(
        definition=f"coverage, beside it density, of Inception features with balls up to neighbour {DC_NEIGHBOUR}; the "
        f"first {DC_REAL:,} real images, none flipped, against {num_gen:,} generated ones; higher is better",
        detector=inception_metrics.DETECTOR,
        num_gen=num_gen,
        keep=Keep.ROWS,
        real=RealUse(Keep.ROWS, max_count=DC_REAL),
        check=partial(check_neighbours, k=DC_NEIGHBOUR),
        measure=measure_density_coverage,
        higher_is_better=True,
    )


FAMILIES = (
    Family("pr{count}3_full", min_gen=PR_NEIGHBOUR + 1, make=_precision_recall),
    Family("dc{count}5_full", min_gen=1, make=_density_coverage, standard_count="10k"),
)

DETECTORS = {DETECTOR: DetectorKind(build_vgg16, prepare_vgg16, (VGG16_FILE,))}
