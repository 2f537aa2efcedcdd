"""Distances that need no downloaded weights: they rank snapshots of one data set; no published number compares."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from metrics.detectors import BuildContext, Detector, DetectorKind, weights_digest
from metrics.distances.frechet import moments_distance
from metrics.features import Keep
from metrics.images import RealImages
from metrics.metric import Inputs, Measurement, Metric, RealUse, check_count
from metrics.networks import image_classifier, random_convolutions
from metrics.networks.image_classifier import ImageClassifier, mean_distance
from metrics.networks.random_convolutions import RandomConvolutions

RANDCONV, CLASSIFIER = "randconv_v1", "clf_v1"  # detectors
NUM_GEN = 2000  # generated images
DDOF = 1  # of the covariances
MIN_REAL = 4  # for a covariance of each half
MIN_PER_CLASS = 10  # labelled images for the classifier, on average


def build_random_convolutions(context: BuildContext) -> Detector:
    network = RandomConvolutions(context.device)
    return Detector(RANDCONV, network, random_convolutions.FEATURES, weights_digest(network.weights), resize="none")


def build_classifier(context: BuildContext) -> Detector:
    """Return the detector of proxy_fd_clf_v1, trained on the real images unless the cache has it."""
    network = image_classifier.load_or_train(context.real, context.device, context.weights.folder, context.progress)
    resize = f"average_{image_classifier.SIZE_PX}"
    return Detector(CLASSIFIER, network, image_classifier.FEATURES, weights_digest(network.state_dict()), resize)


check_real = partial(check_count, least=MIN_REAL)


def check_labelled(real: RealImages) -> None:
    """Raise ValueError unless the real images are sorted into classes that a classifier can learn."""
    check_real(real)
    if real.num_classes < 2:
        raise ValueError(
            f"proxy_fd_clf_v1 trains a classifier on the real images, but {real.name} has no class labels (one class "
            f"per image, at least 2 classes). Use proxy_fd_randconv_v1, or pack the data set again "
            f"from one folder per class: dataset_tool.py --source=FOLDER --dest=data.zip --labels-from-folders"
        )
    if real.count < MIN_PER_CLASS * real.num_classes:
        raise ValueError(
            f"proxy_fd_clf_v1 trains a classifier on the real images: {real.num_classes} classes take at least "
            f"{MIN_PER_CLASS * real.num_classes} images, but {real.name} has {real.count}. Use proxy_fd_randconv_v1"
        )


def measure_distance(inputs: Inputs) -> Measurement:
    """Return the Frechet distance of generated and real images; the floor is that of two halves of the real ones."""
    real, fake = inputs.both
    value, (first, second) = moments_distance(fake.moments, real.moments, DDOF), real.halves
    return Measurement(value, floor=moments_distance(first, second, DDOF), settings={"ddof": DDOF})


def measure_classified(inputs: Inputs) -> Measurement:
    """Return the Frechet distance with the test accuracy of the classifier and, for a conditional generator:

    `read_as_asked`: share of the generated images that are classified as the class asked for.
    `variety`: mean distance between the features of two images of a class, generated over real (held-out) ones,
    averaged over the classes; 1 = as varied as real images, 0 = one image per class.
    """
    classifier, fake = inputs.detector.network, inputs.fake
    assert isinstance(classifier, ImageClassifier)
    details = {"classifier_accuracy": classifier.accuracy.item()}
    if fake.classes is not None:
        details["read_as_asked"] = (classifier.classify(fake.rows) == fake.classes).double().mean().item()
        spread = [mean_distance(fake.rows[fake.classes == k]) for k in range(len(classifier.spread))]
        ratios: Tensor = torch.stack(spread) / classifier.spread.cpu()
        if ratios.isfinite().any():
            details["variety"] = ratios[ratios.isfinite()].mean().item()
    return replace(measure_distance(inputs), details=details)


DETECTORS = {RANDCONV: DetectorKind(build_random_convolutions), CLASSIFIER: DetectorKind(build_classifier)}

_BASE = Metric(
    "Frechet distance (ddof 1) of 256 edge and colour statistics from fixed random convolutions; all real images against "
    "2,000 generated ones",
    detector=RANDCONV,
    measure=measure_distance,
    keep=Keep.MOMENTS,
    real=RealUse(Keep.MOMENTS),
    num_gen=NUM_GEN,
    check=check_real,
    comparable_to_published=False,
)
_CLASSIFIED = replace(
    _BASE,
    definition="Frechet distance (ddof 1) of 128 features, of total variance 10, of a small classifier that is trained on the "
    "labelled real images; all of them against 2,000 generated ones",
    detector=CLASSIFIER,
    measure=measure_classified,
    keep=Keep.MOMENTS | Keep.ROWS,
    check=check_labelled,
)
METRICS = {"proxy_fd_randconv_v1": _BASE, "proxy_fd_clf_v1": _CLASSIFIED}
