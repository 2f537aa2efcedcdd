"""The proxies: fixed weights, sensible order of distortions, and what the classifier of a data set reports."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from image_sets import FixedImages, GeneratedImages, demo_images
from torch import Tensor

from metrics.detectors import BuildContext, Detector, full_precision, weights_digest
from metrics.families import proxy
from metrics.features import FeatureRecord, Keep
from metrics.images import no_progress
from metrics.metric import Inputs
from metrics.networks import image_classifier
from metrics.networks.image_classifier import FEATURES, ImageClassifier, TrainingSettings, load_or_train
from metrics.networks.random_convolutions import RandomConvolutions
from metrics.registry import evaluate
from metrics.weights.published import Source

CPU = torch.device("cpu")
QUICK = TrainingSettings(short_images=8000, long_images=8000)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    return demo_images("score", 1000)


@pytest.fixture(scope="module")
def randconv() -> Detector:
    real = FixedImages(torch.zeros(4, 3, 8, 8))
    return proxy.build_random_convolutions(BuildContext(real, CPU, Source(), no_progress))


@pytest.fixture(scope="module")
def quick_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def classifier(quick_folder: Path, digits: tuple[Tensor, Tensor]) -> ImageClassifier:
    return load_or_train(FixedImages(*digits), CPU, quick_folder, no_progress, QUICK)


def detector_of(classifier: ImageClassifier) -> Detector:
    return Detector("clf", classifier, FEATURES, "none", "none")


def record_of(detector: Detector, images: Tensor, classes: Tensor | None = None) -> FeatureRecord:
    record = FeatureRecord(detector.dim, len(images), Keep.MOMENTS | Keep.ROWS)
    with full_precision():
        record.append(torch.cat([detector.network(part) for part in images.split(250)]), classes, 0)
    return record


def blur(images: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(images.float(), [1] * 4, mode="replicate"), 3, stride=1).to(torch.uint8)


def noisy(images: Tensor, std: float) -> Tensor:
    noise = std * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + noise).clamp(0, 255).to(torch.uint8)


def distance(detector: Detector, real: FeatureRecord, images: Tensor) -> float:
    return proxy.measure_distance(Inputs(detector, CPU, real=real, fake=record_of(detector, images))).value


def test_random_convolutions_are_the_recorded_ones(randconv: Detector) -> None:
    assert randconv.digest == "82e72b78da3d55dc1af604718e3118fde8bc05822d1fdd37946a33505e1adb0a"
    ramp = (torch.arange(3 * 32 * 32) * 37 % 256).to(torch.uint8).view(1, 3, 32, 32)
    features = randconv.network(ramp)
    assert features.shape == (1, 256) and features.dtype == torch.float32
    assert features.double().sum().item() == pytest.approx(25.94803, rel=1e-5)
    assert features.double().square().sum().item() == pytest.approx(7.197960, rel=1e-5)


def test_random_convolutions_order_distortions(randconv: Detector, digits: tuple[Tensor, Tensor]) -> None:
    images, classes = digits
    real = record_of(randconv, images)
    noise = torch.randint(0, 256, images.shape, dtype=torch.uint8)
    shown = (images, noisy(images, 10), blur(images), noisy(images, 60), noise)
    values = [distance(randconv, real, x) for x in shown]
    assert 0 <= values[0] < 1e-9 and values == sorted(values) and values[1] > 0.01
    assert distance(randconv, real, images[classes < 3]) > 2 * distance(randconv, real, images[::3])


@pytest.mark.parametrize("network", [RandomConvolutions(CPU), ImageClassifier(10).eval()])
def test_any_size_and_grey_images(network: RandomConvolutions | ImageClassifier) -> None:
    for height, width in [(8, 8), (12, 9), (48, 48), (33, 64)]:
        grey = torch.randint(0, 256, [2, 1, height, width], dtype=torch.uint8)
        assert torch.equal(network(grey), network(grey.expand(-1, 3, -1, -1))) and network(grey).isfinite().all()


def test_training_is_seeded_and_leaves_the_random_state(digits: tuple[Tensor, Tensor]) -> None:
    settings = replace(QUICK, short_images=640, long_images=1280)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with torch.no_grad():  # as inside an evaluation
        models = [image_classifier.train(FixedImages(*digits), CPU, no_progress, settings) for _ in range(2)]
    assert torch.equal(torch.rand(3), expected)
    assert weights_digest(models[0].state_dict()) == weights_digest(models[1].state_dict())


def test_classifier_comes_from_the_cache_by_content(quick_folder, classifier, digits):
    def no_training(what: str, done: int, total: int) -> None:
        raise AssertionError("it was trained again")

    cached = load_or_train(FixedImages(*digits), CPU, quick_folder, no_training, QUICK)
    assert weights_digest(cached.state_dict()) == weights_digest(classifier.state_dict())
    with pytest.raises(AssertionError, match="again"):
        load_or_train(FixedImages(*digits, content_hash="other"), CPU, quick_folder, no_training, QUICK)


@pytest.mark.filterwarnings("ignore:a Frechet distance")
def test_classified_images(classifier: ImageClassifier, digits: tuple[Tensor, Tensor]) -> None:
    assert classifier.accuracy.item() > 0.9
    images, classes = digits
    detector = detector_of(classifier)
    real = record_of(detector, images, classes)

    def details(fake: FeatureRecord) -> dict[str, float]:
        return proxy.measure_classified(Inputs(detector, CPU, real=real, fake=fake)).details

    itself = details(real)
    assert itself["classifier_accuracy"] == classifier.accuracy.item()
    assert itself["read_as_asked"] > 0.9 and itself["variety"] == pytest.approx(1.0, abs=0.2)
    assert real.rows.double().var(dim=0).sum().item() == pytest.approx(10.0, rel=0.2)
    same = record_of(detector, images[:10].repeat(100, 1, 1, 1), classes[:10].repeat(100))
    assert details(same)["variety"] == pytest.approx(0.0, abs=1e-5)
    wrong = record_of(detector, images, (classifier.classify(real.rows) + 1) % 10)
    assert details(wrong)["read_as_asked"] == 0.0
    assert set(details(record_of(detector, images))) == {"classifier_accuracy"}  # not asked for a class
    assert "variety" not in details(record_of(detector, images[:10], classes[:10]))  # no two images of a class
    noise = torch.randint(0, 256, images.shape, dtype=torch.uint8)
    values = [distance(detector, real, x) for x in (images[:500], images[classes < 5], noise)]
    assert values == sorted(values)


def test_sets_without_classes_are_refused() -> None:
    for images, message in {
        FixedImages(torch.zeros(120, 3, 8, 8)): r"no class labels.*proxy_fd_randconv_v1.*--labels-from-folders",
        FixedImages(torch.zeros(120, 3, 8, 8), torch.arange(120)): "120 classes take at least 1200 images",
        FixedImages(torch.zeros(3, 3, 8, 8), torch.arange(3) % 2): "has 3 images",
    }.items():
        with pytest.raises(ValueError, match=message):
            proxy.check_labelled(images)


@pytest.mark.slow
def test_the_whole_metric_on_the_demo_digits(tmp_path: Path) -> None:
    real, fake = FixedImages(*demo_images("train", 6000)), GeneratedImages(*demo_images("score", 1000))
    fake = GeneratedImages(fake.images.repeat(2, 1, 1, 1), fake.classes.repeat(2))
    (result,) = evaluate(["proxy_fd_clf_v1"], real, fake, weights=Source(cache_folder=tmp_path))
    assert result.details["classifier_accuracy"] > 0.97 and result.details["read_as_asked"] > 0.97
    assert result.floor is not None and result.value < 10 * result.floor and 0.8 < result.details["variety"] < 1.2
