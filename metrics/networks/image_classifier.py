"""The network of proxy_fd_clf_v1: a small classifier, trained at first use on the labelled real images."""

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metrics import cache
from metrics.images import Progress, RealImages

_VERSION = "clf_v1"
SIZE_PX = 32
FEATURES = 128

_TOTAL_VARIANCE = 10.0  # of the features of the held-out images, summed over the features
_MAX_IMAGES = 100_000  # that it is trained on and tested with: evenly spaced ones of a larger set


@dataclass(frozen=True)
class TrainingSettings:
    """How the classifier is trained. One training image costs about 0.1 GFLOP: 16 million multiplications, three times.

    The budget is a number of images, so the result does not depend on the speed of the machine. Easy sets end with the
    short schedule; the long one starts anew and reaches 83 % on CIFAR-10.
    """

    short_images: int = 20_000
    long_images: int = 400_000
    enough: float = 0.97  # training accuracy at the end of the short schedule that makes the long one needless
    batch: int = 128
    lr: float = 0.1  # the peak of a one-cycle schedule
    weight_decay: float = 5e-4
    shift_px: int = 2  # images are moved by up to this much
    seed: int = 0


class ImageClassifier(nn.Module):
    """A convolutional network for images of 32x32 px; its features are the activations before the last layer."""

    scale: Tensor  # factor that gives the features of the held-out images a total variance of 10, []
    accuracy: Tensor  # share of the held-out images that are classified correctly, float64 []
    spread: Tensor  # mean distance between the features of two held-out images of a class, float64 [classes]

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = _unit(3, 32)
        self.stage1 = nn.Sequential(nn.MaxPool2d(2), _unit(32, 64))
        self.stage2 = nn.Sequential(nn.MaxPool2d(2), _unit(64, FEATURES))
        self.pool = nn.MaxPool2d(2)
        self.residual = nn.Sequential(_unit(FEATURES, FEATURES), _unit(FEATURES, FEATURES))
        self.head = nn.Linear(FEATURES, num_classes)
        self.register_buffer("scale", torch.ones([]))
        self.register_buffer("accuracy", torch.zeros([], dtype=torch.float64))
        self.register_buffer("spread", torch.zeros(num_classes, dtype=torch.float64))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Return features, float32 [n, 128], of images, uint8 [n, 1 or 3, height, width]."""
        return self.features(_normalise(shrink(images))) * self.scale

    def features(self, x: Tensor) -> Tensor:
        """Return features, [n, 128], of images, -1..1, [n, 3, 32, 32]."""
        x = self.pool(self.stage2(self.stage1(self.stem(x))))
        return (x + self.residual(x)).mean(dim=(2, 3))

    def classify(self, features: Tensor) -> Tensor:
        """Return the class, int64 [n], of each row of features, [n, 128]."""
        return self.head(features.to(self.head.weight.device) / self.scale).argmax(dim=1).to(features.device)


def _unit(channels_in: int, channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def shrink(images: Tensor) -> Tensor:
    """Return uint8 images, [n, channels, height, width], averaged to [n, channels, 32, 32]; smaller ones are repeated."""
    if images.shape[2:] == (SIZE_PX, SIZE_PX):
        return images
    return F.adaptive_avg_pool2d(images.float(), SIZE_PX).round().to(torch.uint8)


def _normalise(images: Tensor) -> Tensor:
    x = (images.float() / 127.5 - 1).expand(-1, 3, -1, -1)
    return x.contiguous(memory_format=torch.channels_last)


def load_or_train(
    real: RealImages, device: torch.device, folder: Path, progress: Progress, settings: TrainingSettings | None = None
) -> ImageClassifier:
    """Return the classifier of a labelled set of images in eval mode, from the cache folder or trained.

    Training is seeded: it gives the same weights again on one kind of machine with one number of threads.
    """
    settings = settings or TrainingSettings()
    key: cache.CacheKey = {"version": _VERSION, "content": real.content_hash, "training": repr(asdict(settings))}
    arrays = cache.load(folder, _VERSION, key)
    if arrays is None:
        model = train(real, device, progress, settings)
        arrays = {name: value.cpu().numpy() for name, value in model.state_dict().items()}
        cache.save(folder, _VERSION, key, arrays)
    model = ImageClassifier(real.num_classes).eval().requires_grad_(False)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return model.to(device)


def train(real: RealImages, device: torch.device, progress: Progress, settings: TrainingSettings) -> ImageClassifier:
    """Return a classifier trained on nine tenths of the images, with accuracy, scale and spread from the others."""
    images, classes = _read(real, progress)
    is_held_out = torch.from_numpy(np.random.RandomState(settings.seed).permutation(len(images)) < len(images) // 10)
    train_set = images[~is_held_out].to(device), classes[~is_held_out].to(device)
    cuda_devices = [device] if device.type == "cuda" else []
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with exact, torch.random.fork_rng(devices=cuda_devices), torch.inference_mode(False), torch.enable_grad():
        for num_images in (settings.short_images, settings.long_images):
            torch.manual_seed(settings.seed)
            model = ImageClassifier(real.num_classes).to(device)
            if _fit(model, train_set, num_images, settings, progress) >= settings.enough:
                break
    model.eval().requires_grad_(False)
    _examine(model, images[is_held_out].to(device), classes[is_held_out])
    return model


def _read(real: RealImages, progress: Progress) -> tuple[Tensor, Tensor]:
    chosen = range(0, real.count, -(-real.count // _MAX_IMAGES))
    images, classes = [], []
    for some, their_classes in real.batches(chosen, 256):
        assert their_classes is not None  # the metric's check requires labels
        images.append(shrink(some))
        classes.append(their_classes)
        progress("reading images for the classifier", min(len(images) * 256, len(chosen)), len(chosen))
    return torch.cat(images), torch.cat(classes)


def _fit(
    model: ImageClassifier,
    train_set: tuple[Tensor, Tensor],
    num_images: int,
    settings: TrainingSettings,
    progress: Progress,
) -> float:
    """Train on so many images; return the accuracy on the last fifth of them."""
    images, classes = train_set
    steps = max(num_images // settings.batch, 1)
    optimizer = torch.optim.SGD(
        model.parameters(), settings.lr, momentum=0.9, nesterov=True, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=steps, pct_start=0.25)
    correct: list[Tensor] = []
    for step, chosen in enumerate(itertools.islice(_batches(len(images), settings.batch), steps), start=1):
        chosen = chosen.to(images.device)
        logits = model.head(model.features(_augment(images[chosen], settings.shift_px)))
        loss = F.cross_entropy(logits, classes[chosen], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step > 0.8 * steps:
            correct.append((logits.argmax(dim=1) == classes[chosen]).float().mean())
        progress("training the classifier", step * settings.batch, steps * settings.batch)
    return torch.stack(correct).mean().item()


def _batches(count: int, size: int) -> Iterator[Tensor]:
    used = max(count // size * size, min(count, size))  # a small last batch would disturb batch normalisation
    while True:
        yield from torch.randperm(count)[:used].split(size)


def _augment(images: Tensor, shift_px: int) -> Tensor:
    """Return images, -1..1, half of them flipped and each batch's shifted."""
    x = _normalise(images)
    left, top = torch.randint(0, 2 * shift_px + 1, [2]).tolist()
    moved = F.pad(x, [shift_px] * 4, mode="reflect")[:, :, top : top + SIZE_PX, left : left + SIZE_PX]
    is_flipped = torch.rand(len(x), 1, 1, 1).to(x.device) < 0.5
    return torch.where(is_flipped, moved.flip(3), moved)


@torch.no_grad()
def _examine(model: ImageClassifier, images: Tensor, classes: Tensor) -> None:
    """Set accuracy, scale and spread from the held-out images."""
    features: Tensor = torch.cat([model.forward(part).cpu() for part in images.split(256)])
    model.accuracy.copy_((model.classify(features) == classes).double().mean())
    # A common scale, because two trainings on two machines end with features of different size.
    scale = (_TOTAL_VARIANCE / features.double().var(dim=0).sum().clamp(min=1e-12)).sqrt().float()
    model.scale.copy_(scale)
    features = features * scale
    model.spread.copy_(torch.stack([mean_distance(features[classes == k]) for k in range(len(model.spread))]))


def mean_distance(rows: Tensor) -> Tensor:
    """Return the mean Euclidean distance between two different rows of [n, dim], float64 []; NaN for fewer than two."""
    return F.pdist(rows.double()).mean()
