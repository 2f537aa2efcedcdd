"""The detector of proxy_fd_democlf_v1: a small classifier of the built-in demo digits, trained at its first use."""

import contextlib
import dataclasses
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnnlib.sources import demo_digits
from metrics import cache
from metrics.detectors import weights_digest
from metrics.images import Progress

NUM_CLASSES = 10
FEATURES = 128

_VERSION = "democlf_v1"
_TOTAL_VARIANCE = 10.0  # of the features of the scoring digits, summed over the features
_SIZES = (3, 16, 32, 48)  # colours, then the channels of each convolution


@dataclass(frozen=True)
class TrainingSettings:
    """How the classifier is trained."""

    epochs: int = 6
    batch: int = 64
    lr: float = 4e-3  # the peak of a one-cycle schedule
    seed: int = 0
    shift_px: int = 2  # images are moved by up to this much
    colour: float = 0.1  # standard deviation of a colour's gain and offset, of the range -1..1
    noise: float = 0.1  # the largest standard deviation of pixel noise, of the range -1..1
    blur: float = 0.25  # share of images that are blurred
    count: int | None = None  # images to train on; None = the whole training split
    min_accuracy: float = 0.97  # a classifier that reads fewer of the scoring digits is refused


class DemoClassifier(nn.Module):
    """Reads coloured digits of 32x32 px; its features are the activations before the last layer."""

    name = _VERSION
    resize = "none"
    is_published = False
    dim = FEATURES
    accuracy: Tensor  # share of the scoring digits read correctly, []
    spread: Tensor  # mean distance between the features of two scoring digits of a class, float64 [classes]

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels_in, channels_out in itertools.pairwise(_SIZES):
            layers += [nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1)]
            layers += [nn.BatchNorm2d(channels_out), nn.ReLU()]
        side_px = demo_digits.SIZE_PX // 2 ** (len(_SIZES) - 1)
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        self.hidden = nn.Linear(_SIZES[-1] * side_px**2, FEATURES)
        self.head = nn.Linear(FEATURES, NUM_CLASSES)
        self.register_buffer("accuracy", torch.zeros([], dtype=torch.float64))
        self.register_buffer("spread", torch.zeros(NUM_CLASSES, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        """Return features, float32 [n, 128], of images, uint8 [n, 3, 32, 32]."""
        return self.describe(_normalise(images))

    def describe(self, x: Tensor) -> Tensor:
        """Return features, float32 [n, 128], of images of range -1..1, [n, 3, 32, 32]."""
        return self.hidden(self.convolutions(x)).relu()

    def read(self, features: Tensor) -> Tensor:
        """Return the class that each row of features, [n, 128], is read as, int64 [n]."""
        return self.head(features.to(self.head.weight.device)).argmax(dim=1).to(features.device)

    @property
    def digest(self) -> str:
        """The sha256 of the weights and of the figures found in training."""
        return weights_digest(self.state_dict())


def load_or_train(
    device: torch.device, folder: Path, progress: Progress, settings: TrainingSettings | None = None
) -> DemoClassifier:
    """Return the classifier in eval mode, from the cache folder or trained (about 15 seconds).

    Raises ValueError when it reads too few of the scoring digits. Its weights are those of one kind of machine:
    processors that sum in another order give a slightly different network, which the recorded digest shows.
    """
    settings = settings or TrainingSettings()
    training = repr(dataclasses.asdict(settings))
    key: cache.CacheKey = {"version": _VERSION, "digits": _drawing_hash(), "training": training}
    model = DemoClassifier().eval().requires_grad_(False)
    arrays = cache.load(folder, "democlf", key)
    if arrays is not None:
        model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    else:
        model.load_state_dict(train(settings, progress).state_dict())
        cache.save(folder, "democlf", key, {name: value.numpy() for name, value in model.state_dict().items()})
    return model.to(device)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one processor: sums do not depend on their number, and layers this small gain little from more."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


@_one_thread()
def train(settings: TrainingSettings, progress: Progress) -> DemoClassifier:
    """Return a classifier trained on the training split and tried on the scoring split, on the CPU."""
    images, labels = _draw("train", settings.count)
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(settings.seed)
        model = DemoClassifier()
        steps = settings.epochs * (len(images) // settings.batch)
        optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=steps)
        for step, chosen in enumerate(_batches(len(images), settings), start=1):
            logits = model.head(model.describe(_distort(images[chosen], settings)))
            loss = F.cross_entropy(logits, labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress("training the digit reader", step, steps)
    _examine(model.eval(), settings)
    return model


def mean_distance(rows: Tensor) -> Tensor:
    """Return the mean Euclidean distance between two different rows of [n, dim], float64 []; NaN for fewer than two."""
    return F.pdist(rows.double()).mean()


@torch.no_grad()
def _examine(model: DemoClassifier, settings: TrainingSettings) -> None:
    """Set the scale of the features, `accuracy` and `spread` by the scoring digits; raise ValueError if it reads too few."""
    images, labels = _draw("score", None)
    features = model(images)
    accuracy = (model.read(features) == labels).double().mean()
    if accuracy < settings.min_accuracy:
        raise ValueError(
            f"the digit reader of {_VERSION} reads only {accuracy:.1%} of the scoring digits after training, where "
            f"{settings.min_accuracy:.0%} are needed; leave this metric out and report the versions of torch and Pillow"
        )
    # A common scale, because two trainings, on two machines, end with weights of different size.
    scale = (_TOTAL_VARIANCE / features.double().var(dim=0).sum()).sqrt().float()
    model.hidden.weight.mul_(scale)
    model.hidden.bias.mul_(scale)
    model.head.weight.div_(scale)
    features = model(images)
    model.accuracy.copy_(accuracy)
    model.spread.copy_(torch.stack([mean_distance(features[labels == label]) for label in range(NUM_CLASSES)]))


def _normalise(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1


def _draw(split: str, count: int | None) -> tuple[Tensor, Tensor]:
    """Return a split of the demo digits: uint8 [n, 3, 32, 32] and labels int64 [n]."""
    images, labels = zip(*demo_digits.digits(split, count), strict=True)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def _batches(count: int, settings: TrainingSettings) -> Iterator[Tensor]:
    for _ in range(settings.epochs):
        order = torch.randperm(count)
        yield from order[: count // settings.batch * settings.batch].split(settings.batch)


def _distort(images: Tensor, settings: TrainingSettings) -> Tensor:
    """Return images, -1..1, moved, tinted, made noisy or blurred, as a generator's digits may be."""
    x, n, shift = _normalise(images), len(images), settings.shift_px
    left, top = torch.randint(0, 2 * shift + 1, [2]).tolist()
    moved = F.pad(x, [shift] * 4, mode="replicate")[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    gain, offset = settings.colour * torch.randn(2, n, 3, 1, 1)
    noise = settings.noise * torch.rand(n, 1, 1, 1) * torch.randn(x.shape)
    x = moved * (1 + gain) + offset + noise
    blurred = F.avg_pool2d(F.pad(x, [1, 1, 1, 1], mode="replicate"), 3, stride=1)
    return torch.where(torch.rand(n, 1, 1, 1) < settings.blur, blurred, x)


def _drawing_hash() -> str:
    """Return a hash of how digits are drawn: the program text, and images, since they depend on Pillow's font too."""
    digest = hashlib.sha256(Path(demo_digits.__file__).read_bytes())
    for image, _ in demo_digits.digits("train", 100):
        digest.update(image.tobytes())
    return digest.hexdigest()
