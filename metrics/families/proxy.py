"""Distances that need no downloaded weights: they rank snapshots of one data set; no published number compares."""

from dataclasses import replace

import torch

from dnnlib.sources.demo_digits import SIZE_PX
from metrics.detectors import BuildContext, DetectorKind, full_precision
from metrics.distances.frechet import moments_distance
from metrics.features import Keep
from metrics.images import RealImages
from metrics.metric import Inputs, Measurement, Metric, RealUse
from metrics.networks import demo_classifier
from metrics.networks.demo_classifier import NUM_CLASSES, DemoClassifier, mean_distance
from metrics.networks.random_convolutions import RandomConvolutions

NUM_GEN = 2000  # generated images that a proxy looks at
DDOF = 1  # of the covariances
NUM_ASKED = 1000  # of them, those whose class is read and compared with the class asked for

_NUM_TRIED = 500  # real images on which the digit reader is tried before it judges
_MIN_AGREEMENT = 0.8  # share of them that it must read as labelled


def build_random_convolutions(context: BuildContext) -> RandomConvolutions:
    """Return the detector of proxy_fd_randconv_v1."""
    return RandomConvolutions(context.device)


def build_demo_classifier(context: BuildContext) -> DemoClassifier:
    """Return the detector of proxy_fd_democlf_v1; raises ValueError where it cannot read the real images."""
    device, real = context.device, context.real
    classifier = demo_classifier.load_or_train(device, context.cache_folder, context.progress)
    images, classes = next(iter(real.batches(range(min(_NUM_TRIED, real.count)), _NUM_TRIED)))
    assert classes is not None  # check_digits saw to that
    with full_precision():
        agreement = (classifier.read(classifier(images.to(device))).cpu() == classes).double().mean().item()
    if agreement < _MIN_AGREEMENT:
        raise ValueError(
            f"proxy_fd_democlf_v1 reads only {agreement:.0%} of the first {len(images)} real images as the digit "
            f"they are labelled: this is not the built-in demo set. Use proxy_fd_randconv_v1, or pack the demo set by "
            f"dataset_tool.py --source=demo"
        )
    return classifier


def check_any(real: RealImages) -> None:
    """Raise ValueError unless there are enough real images to compare two halves of them."""
    if real.count < 4:
        raise ValueError(f"the real set has {real.count} images; at least 4 are needed for a covariance of each half")


def check_digits(real: RealImages) -> None:
    """Raise ValueError unless the real images may be the demo digits: 32x32 px, RGB, 10 classes."""
    check_any(real)
    channels, height, width = real.image_shape
    if (channels, height, width) != (3, SIZE_PX, SIZE_PX) or real.num_classes != NUM_CLASSES:
        raise ValueError(
            f"proxy_fd_democlf_v1 judges the built-in demo digits only ({SIZE_PX}x{SIZE_PX} px, RGB, {NUM_CLASSES} "
            f"classes), but the real set has {width}x{height} px, {channels} channels, {real.num_classes} classes; use "
            f"proxy_fd_randconv_v1"
        )


def measure_distance(inputs: Inputs) -> Measurement:
    """Return the Frechet distance of fake and real, covariance with ddof 1; the floor is that of two real halves."""
    real, fake = inputs.both
    value, floor = moments_distance(fake.moments, real.moments, DDOF), moments_distance(*real.halves, DDOF)
    return Measurement(value, floor, settings={"ddof": DDOF})


def measure_digits(inputs: Inputs) -> Measurement:
    """Return the Frechet distance and, for a conditional generator, whether it draws what was asked for, in variety.

    `read_as_asked`: share of the first 1,000 generated images that are read as the class asked for.
    `variety`: mean distance between the features of two images of a class, generated over real (the scoring digits),
    averaged over the classes; 1 = as varied as real digits, 0 = one image a class.
    """
    detector, fake = inputs.detector, inputs.fake
    assert isinstance(detector, DemoClassifier)
    distance = measure_distance(inputs)
    details = {"classifier_accuracy": detector.accuracy.item()}
    if fake.classes is not None:
        read = detector.read(fake.rows[:NUM_ASKED])
        details["read_as_asked"] = (read == fake.classes[:NUM_ASKED]).double().mean().item()
        spread = torch.stack([mean_distance(fake.rows[fake.classes == k]) for k in range(NUM_CLASSES)])
        details["variety"] = (spread / detector.spread.cpu()).nanmean().item()
    return replace(distance, details=details)


DETECTORS = {
    "randconv_v1": DetectorKind(build_random_convolutions),
    "democlf_v1": DetectorKind(build_demo_classifier),
}

METRICS = {
    "proxy_fd_randconv_v1": Metric(
        definition="Frechet distance (ddof 1) of 256 edge and colour statistics from fixed random convolutions; "
        "all real images against 2,000 generated ones",
        detector="randconv_v1",
        num_gen=NUM_GEN,
        keep=Keep.MOMENTS,
        real=RealUse(Keep.MOMENTS),
        check=check_any,
        measure=measure_distance,
        comparable_to_published=False,
    ),
    "proxy_fd_democlf_v1": Metric(
        definition="Frechet distance (ddof 1) of 128 features, of total variance 10, of a classifier of the demo digits; "
        "all real images against 2,000 generated ones",
        detector="democlf_v1",
        num_gen=NUM_GEN,
        keep=Keep.MOMENTS | Keep.ROWS,
        real=RealUse(Keep.MOMENTS),
        check=check_digits,
        measure=measure_digits,
        comparable_to_published=False,
    ),
}
