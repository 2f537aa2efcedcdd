"""FID, KID and the Inception score, for any number of generated images."""

from dataclasses import replace
from functools import partial

import torch

from metrics.detectors import BuildContext, Detector, DetectorKind, full_precision
from metrics.distances import inception_score, kernel
from metrics.distances.frechet import moments_distance
from metrics.features import Keep
from metrics.metric import GENERATED, Family, Inputs, Measurement, Metric, RealUse, check_count
from metrics.networks.inception import FEATURES, INPUT_PX, InceptionV3, read_inception
from metrics.weights.published import INCEPTION, require
from metrics.weights.reading import with_state

DETECTOR = "inception_2015"
FID_DDOF = 0  # as in StyleGAN2's and Styleformer's programs; pytorch-fid and torch-fidelity have 1
FID_REAL = 50_000  # of the FID without `_full`

_FEATURES = f"{FEATURES:,} Inception features"
_ALL = f"{_FEATURES}; all real images, none flipped"


def build_inception(context: BuildContext) -> Detector:
    weights = require(INCEPTION, context.weights)
    network = with_state(InceptionV3, read_inception(weights.path)).to(context.device)
    if context.device.type == "cpu":
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster there
    resize = f"tensorflow1_bilinear_{INPUT_PX}"
    return Detector(DETECTOR, network, FEATURES, weights.sha256, resize, weights.is_published)


def measure_kid(inputs: Inputs) -> Measurement:
    real, fake = inputs.both
    mean, std = kernel.kernel_distance(fake.rows, real.rows)
    size = min(fake.count, real.count, kernel.MAX_SUBSET)
    settings = {"subsets": kernel.NUM_SUBSETS, "subset_size": size, "subset_seed": kernel.SEED, "degree": kernel.DEGREE}
    return Measurement(mean, details={"std": std}, settings=settings)


def measure_is(inputs: Inputs) -> Measurement:
    assert isinstance(inputs.detector.network, InceptionV3)
    with full_precision():
        logits = inputs.detector.network.logits(inputs.fake.rows).cpu()
    mean, std = inception_score.inception_score(logits)
    settings = {"splits": inception_score.NUM_SPLITS, "shuffled": False, "bias": False, "ddof": 0}
    return Measurement(mean, details={"std": std}, settings=settings)


def frechet_metric(detector: str, features: str, ddof: int) -> Metric:
    """Return the Frechet distance of the features of a detector; `features` describes them and the real images."""

    def measure(inputs: Inputs) -> Measurement:
        real, fake = inputs.both
        return Measurement(moments_distance(real.moments, fake.moments, ddof), settings={"ddof": ddof})

    definition = f"Frechet distance (covariance with ddof {ddof}) of {features}, against {GENERATED} ones"
    return Metric(definition, detector, measure, Keep.MOMENTS, RealUse(Keep.MOMENTS))


def kernel_metric(detector: str, features: str) -> Metric:
    """Return the kernel distance of the features of a detector; `features` describes them and the real images."""
    how = f"cubic, unbiased, mean of {kernel.NUM_SUBSETS} subsets of up to {kernel.MAX_SUBSET:,}"
    definition = f"kernel distance ({how}) of {features}, against {GENERATED} ones"
    return Metric(definition, detector, measure_kid, real=RealUse(Keep.ROWS))


DETECTORS = {DETECTOR: DetectorKind(build_inception, {INCEPTION: read_inception})}

_FIRST = f"{_FEATURES}; the first {FID_REAL:,} real images, followed by flipped ones where training flips"
_FID_REAL_USE = RealUse(Keep.MOMENTS, as_trained=True, max_count=FID_REAL)
_IS = f"Inception score (no bias, mean of {inception_score.NUM_SPLITS} contiguous splits) of {GENERATED} images; higher is better"

FAMILIES = (
    Family("fid{count}_full", frechet_metric(DETECTOR, _ALL, FID_DDOF)),
    Family("fid{count}", replace(frechet_metric(DETECTOR, _FIRST, FID_DDOF), real=_FID_REAL_USE)),
    Family("kid{count}_full", kernel_metric(DETECTOR, _ALL)),
    Family(
        "is{count}",
        Metric(_IS, DETECTOR, measure_is, check=partial(check_count, least=0), higher_is_better=True),
        min_gen=inception_score.NUM_SPLITS,
    ),
)
