"""The proxies: fixed weights, sensible order of distortions, and what the digit reader reports."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from image_sets import FixedImages, demo_images
from torch import Tensor

from metrics.detectors import BuildContext, Detector, full_precision
from metrics.families import proxy
from metrics.features import FeatureRecord, Keep
from metrics.images import no_progress
from metrics.metric import Inputs
from metrics.networks import demo_classifier
from metrics.networks.demo_classifier import DemoClassifier, TrainingSettings, load_or_train
from metrics.networks.random_convolutions import RandomConvolutions
from metrics.weights.published import Source

CPU = torch.device("cpu")
QUICK = TrainingSettings(epochs=1, count=640, min_accuracy=0.0)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    return demo_images("score", 1000)


@pytest.fixture(scope="module")
def quick_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    load_or_train(CPU, folder, no_progress, QUICK)
    return folder


@pytest.fixture(scope="module")
def quick_classifier(quick_folder: Path) -> DemoClassifier:
    return load_or_train(CPU, quick_folder, no_progress, QUICK)


def record_of(detector: Detector, images: Tensor, classes: Tensor | None = None) -> FeatureRecord:
    record = FeatureRecord(detector.dim, len(images), Keep.MOMENTS | Keep.ROWS)
    with full_precision():
        record.append(torch.cat([detector(part) for part in images.split(250)]), classes, 0)
    return record


def blur(images: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(images.float(), [1] * 4, mode="replicate"), 3, stride=1).to(torch.uint8)


def noisy(images: Tensor, std: float) -> Tensor:
    noise = std * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + noise).clamp(0, 255).to(torch.uint8)


def test_random_convolutions_are_the_recorded_ones() -> None:
    detector = RandomConvolutions(CPU)
    assert detector.digest == "82e72b78da3d55dc1af604718e3118fde8bc05822d1fdd37946a33505e1adb0a"
    ramp = (torch.arange(3 * 32 * 32) * 37 % 256).to(torch.uint8).view(1, 3, 32, 32)
    features = detector(ramp)
    assert features.shape == (1, 256) and features.dtype == torch.float32
    assert features.double().sum().item() == pytest.approx(25.94803, rel=1e-5)
    assert features.double().square().sum().item() == pytest.approx(7.197960, rel=1e-5)


def test_random_convolutions_take_any_size_and_grey_as_equal_colours() -> None:
    detector = RandomConvolutions(CPU)
    for height, width in [(8, 8), (12, 9), (48, 48), (33, 64)]:
        grey = torch.randint(0, 256, [2, 1, height, width], dtype=torch.uint8)
        assert torch.equal(detector(grey), detector(grey.expand(-1, 3, -1, -1)))
        assert detector(grey).isfinite().all()


def test_random_convolutions_order_distortions(digits: tuple[Tensor, Tensor]) -> None:
    detector, (images, classes) = RandomConvolutions(CPU), digits
    real = record_of(detector, images)
    shown = {
        "same": images,
        "little noise": noisy(images, 10),
        "blur": blur(images),
        "much noise": noisy(images, 60),
        "noise only": torch.randint(0, 256, images.shape, dtype=torch.uint8),
    }
    values = [
        proxy.measure_distance(Inputs(detector, CPU, real=real, fake=record_of(detector, x))).value
        for x in shown.values()
    ]
    assert abs(values[0]) < 1e-9
    assert values == sorted(values) and values[1] > 0.01
    missing = proxy.measure_distance(
        Inputs(detector, CPU, real=real, fake=record_of(detector, images[classes < 3]))
    ).value
    assert (
        missing
        > 2 * proxy.measure_distance(Inputs(detector, CPU, real=real, fake=record_of(detector, images[::3]))).value
    )


def test_floor_is_the_distance_of_two_halves(digits: tuple[Tensor, Tensor]) -> None:
    detector = RandomConvolutions(CPU)
    real = record_of(detector, digits[0])
    measured = proxy.measure_distance(Inputs(detector, CPU, real=real, fake=record_of(detector, noisy(digits[0], 60))))
    assert measured.floor is not None and 0 < measured.floor < 0.1 * measured.value
    assert measured.floor == pytest.approx(proxy.moments_distance(*real.halves, ddof=1))


def test_quick_training_is_seeded_and_leaves_the_random_state(quick_classifier: DemoClassifier) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    with torch.no_grad():  # as inside an evaluation
        model = demo_classifier.train(QUICK, no_progress)
    assert torch.equal(torch.rand(3), expected) and torch.get_num_threads() == threads
    assert model.digest == quick_classifier.digest


def test_classifier_comes_from_the_cache(quick_folder: Path, quick_classifier: DemoClassifier) -> None:
    def no_training(what: str, done: int, total: int) -> None:
        raise AssertionError("it was trained again")

    assert load_or_train(CPU, quick_folder, no_training, QUICK).digest == quick_classifier.digest
    with pytest.raises(AssertionError, match="again"):
        load_or_train(CPU, quick_folder, no_training, TrainingSettings(epochs=1, count=64, min_accuracy=0.0))


def test_poor_classifier_is_refused_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"reads only .*%.* 97%"):
        load_or_train(CPU, tmp_path, no_progress, TrainingSettings(epochs=1, count=128))
    assert not list(tmp_path.iterdir())


def test_reading_and_variety_of_the_scoring_digits_themselves(
    quick_classifier: DemoClassifier, digits: tuple[Tensor, Tensor]
) -> None:
    record = record_of(quick_classifier, *digits)
    measured = proxy.measure_digits(Inputs(quick_classifier, CPU, real=record, fake=record))
    assert abs(measured.value) < 1e-6
    assert measured.details["read_as_asked"] == pytest.approx(quick_classifier.accuracy.item())
    assert measured.details["classifier_accuracy"] == quick_classifier.accuracy.item()
    assert measured.details["variety"] == pytest.approx(1.0, rel=1e-5)
    assert record.rows.double().var(dim=0).sum().item() == pytest.approx(10.0, rel=1e-4)


def test_one_image_a_class_has_no_variety(quick_classifier: DemoClassifier, digits: tuple[Tensor, Tensor]) -> None:
    images, classes = digits
    real = record_of(quick_classifier, images, classes)
    same = record_of(quick_classifier, images[:10].repeat(100, 1, 1, 1), classes[:10].repeat(100))
    assert proxy.measure_digits(Inputs(quick_classifier, CPU, real=real, fake=same)).details[
        "variety"
    ] == pytest.approx(0.0, abs=1e-6)
    wrong = record_of(quick_classifier, images, (quick_classifier.read(real.rows) + 1) % 10)
    assert proxy.measure_digits(Inputs(quick_classifier, CPU, real=real, fake=wrong)).details["read_as_asked"] == 0.0


def test_unconditional_images_are_not_asked_for(
    quick_classifier: DemoClassifier, digits: tuple[Tensor, Tensor]
) -> None:
    record = record_of(quick_classifier, digits[0])
    assert set(proxy.measure_digits(Inputs(quick_classifier, CPU, real=record, fake=record)).details) == {
        "classifier_accuracy"
    }


@pytest.mark.parametrize(
    ("shape", "num_classes"), [((3, 64, 64), 10), ((1, 32, 32), 10), ((3, 32, 32), 0), ((3, 32, 32), 100)]
)
def test_digit_reader_refuses_other_images(shape: tuple[int, int, int], num_classes: int) -> None:
    classes = torch.arange(120) % num_classes if num_classes else None
    real = FixedImages(torch.zeros(120, *shape, dtype=torch.uint8), classes)
    with pytest.raises(ValueError, match=r"demo digits only.*use proxy_fd_randconv_v1"):
        proxy.check_digits(real)


def test_digit_reader_refuses_a_set_that_it_cannot_read(
    monkeypatch: pytest.MonkeyPatch, quick_classifier: DemoClassifier, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo_classifier, "load_or_train", lambda *args: quick_classifier)
    real = FixedImages(torch.randint(0, 256, [100, 3, 32, 32], dtype=torch.uint8), torch.arange(100) % 10)
    proxy.check_digits(real)
    with pytest.raises(ValueError, match="of the first 100 real images"):
        proxy.build_demo_classifier(BuildContext(real, CPU, tmp_path, Source(), no_progress))


@pytest.mark.slow
def test_full_training_reads_the_digits_and_judges_them(digits: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    images, classes = digits
    real = FixedImages(images, classes)
    classifier = proxy.build_demo_classifier(BuildContext(real, CPU, tmp_path, Source(), no_progress))
    assert classifier.accuracy.item() >= 0.985
    record = record_of(classifier, images, classes)

    def distance(x: Tensor) -> float:
        return proxy.measure_distance(Inputs(classifier, CPU, real=record, fake=record_of(classifier, x))).value

    half, blurred, noise = images[:500], blur(images), torch.randint(0, 256, images.shape, dtype=torch.uint8)
    values = [distance(x) for x in (half, blurred, images[classes < 5], noise)]
    assert values == sorted(values) and values[0] < 0.1 and values[2] > 1
