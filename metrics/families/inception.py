"""FID, KID and the Inception score, for any number of generated images."""

from dataclasses import replace
from functools import partial

import torch

from metrics.detectors import BuildContext, Detector, DetectorKind, full_precision
from metrics.distances import inception_score, kernel
from metrics.distances.frechet import moments_distance
from metrics.features import Keep
from metrics.images import RealImages
from metrics.metric import Family, Inputs, Measurement, Metric, RealUse, Setting
from metrics.networks.inception import FEATURES, INPUT_PX, InceptionV3
from metrics.networks.inception_weights import load_inception, read_inception
from metrics.weights.published import INCEPTION, require

DETECTOR = "inception_2015"
FID_DDOF = 0  # as in StyleGAN2's and Styleformer's programs; pytorch-fid and torch-fidelity have 1
FID_REAL = 50_000  # of the FID without `_full`


def build_inception(context: BuildContext) -> Detector:
    """Return the detector; raises ValueError for missing or unusable weights."""
    weights = require(INCEPTION, context.weights)
    network = load_inception(weights.path).to(context.device)
    if context.device.type == "cpu":
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster there
    resize = f"tensorflow1_bilinear_{INPUT_PX}"
    return Detector(DETECTOR, network, FEATURES, weights.sha256, resize, weights.is_published)


def measure_fid(inputs: Inputs) -> Measurement:
    """Return the Frechet distance of the features of real and generated images."""
    real, fake = inputs.both
    return Measurement(moments_distance(real.moments, fake.moments, FID_DDOF), settings={"ddof": FID_DDOF})


def measure_kid(inputs: Inputs) -> Measurement:
    """Return the kernel distance of the features of real and generated images."""
    real, fake = inputs.both
    mean, std = kernel.kernel_distance(fake.rows, real.rows)
    settings: dict[str, Setting] = {
        "subsets": kernel.NUM_SUBSETS,
        "subset_size": min(fake.count, real.count, kernel.MAX_SUBSET),
        "subset_seed": kernel.SEED,
        "degree": kernel.DEGREE,
    }
    return Measurement(mean, details={"std": std}, settings=settings)


def measure_is(inputs: Inputs) -> Measurement:
    """Return the Inception score of the generated images."""
    assert isinstance(inputs.detector.network, InceptionV3)
    with full_precision():
        logits = inputs.detector.network.logits(inputs.fake.rows).cpu()
    mean, std = inception_score.inception_score(logits)
    settings: dict[str, Setting] = {"splits": inception_score.NUM_SPLITS, "shuffled": False, "bias": False, "ddof": 0}
    return Measurement(mean, details={"std": std}, settings=settings)


def check_count(real: RealImages, least: int = 2) -> None:
    """Raise ValueError for fewer than `least` real images."""
    if real.count < least:
        raise ValueError(f"the real set has {real.count} images; this metric takes at least {least}")


def _fid_full(num_gen: int) -> Metric:
    return Metric(
        definition=f"Frechet distance (covariance with ddof {FID_DDOF}) of {FEATURES:,} Inception features; all real "
        f"images, none flipped, against {num_gen:,} generated ones",
        detector=DETECTOR,
        num_gen=num_gen,
        keep=Keep.MOMENTS,
        real=RealUse(Keep.MOMENTS),
        check=check_count,
        measure=measure_fid,
    )


def _fid(num_gen: int) -> Metric:
    return replace(
        _fid_full(num_gen),
        definition=f"Frechet distance (covariance with ddof {FID_DDOF}) of {FEATURES:,} Inception features; the first "
        f"{FID_REAL:,} real images, followed by flipped ones where training flips, against {num_gen:,} generated ones",
        real=RealUse(Keep.MOMENTS, as_trained=True, max_count=FID_REAL),
    )


def _kid_full(num_gen: int) -> Metric:
    return kernel_metric(DETECTOR, f"{FEATURES:,} Inception features; all real images, none flipped", num_gen)


def kernel_metric(detector: str, features: str, num_gen: int) -> Metric:
    """Return the kernel distance of the features of a detector; `features` describes them and the real images."""
    return Metric(
        definition=f"kernel distance (cubic, unbiased, mean of {kernel.NUM_SUBSETS} subsets of up to "
        f"{kernel.MAX_SUBSET:,}) of {features}, against {num_gen:,} generated ones",
        detector=detector,
        num_gen=num_gen,
        keep=Keep.ROWS,
        real=RealUse(Keep.ROWS),
        check=check_count,
        measure=measure_kid,
    )


def _is(num_gen: int) -> Metric:
    return Metric(
        definition=f"Inception score (no bias, mean of {inception_score.NUM_SPLITS} contiguous splits) of {num_gen:,} "
        f"generated images; higher is better",
        detector=DETECTOR,
        num_gen=num_gen,
        keep=Keep.ROWS,
        real=None,
        check=partial(check_count, least=0),
        measure=measure_is,
        higher_is_better=True,
    )


DETECTORS = {DETECTOR: DetectorKind(build_inception, {INCEPTION: read_inception})}

FAMILIES = (
    Family("fid{count}_full", min_gen=2, make=_fid_full),
    Family("fid{count}", min_gen=2, make=_fid),
    Family("kid{count}_full", min_gen=2, make=_kid_full),
    Family("is{count}", min_gen=inception_score.NUM_SPLITS, make=_is),
)
