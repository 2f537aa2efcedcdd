import pickle
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from dnnlib.parallel import ordered_map
from dnnlib.sources import torchvision_sets
from dnnlib.sources.image_sources import SourceOptions, open_source
from dnnlib.sources.source_images import ImageSource, SourceImage

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)


class _Recorded:
    """A set in the manner of torchvision that remembers how it was opened."""

    calls: list[dict[str, object]] = []  # noqa: RUF012 - of all of them
    classes = ("a", "b")

    def __init__(self, root: str, split: str = "train", download: bool = False) -> None:
        self.calls.append({"root": root, "split": split, "download": download})
        self.split = split
        if split == "broken":
            raise FileNotFoundError(f"{root}/train.mat\nis nowhere")

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[object, int]:
        if self.split.endswith("unlabeled"):
            return Image.new("L", (8, 8)), index if index == 0 and self.split.startswith("train") else -1
        if index == 2:
            raise OSError("lost")
        return Image.new("CMYK", (8, 8)), index


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, object]]]:
    """Put it in the place of SVHN."""
    monkeypatch.setattr(torchvision.datasets, "SVHN", _Recorded)
    _Recorded.calls.clear()
    torchvision_sets._known_sets.cache_clear()
    yield _Recorded.calls
    torchvision_sets._known_sets.cache_clear()
    torchvision_sets._opened.cache_clear()


def _open(name: str, root: Path, split: str | None = None, download: bool = False, limit: int = 9) -> ImageSource:
    return open_source(f"torchvision:{name}", SourceOptions(limit, False, split, str(root), download))


def _mnist(root: Path) -> Path:
    """Write the files of MNIST as torchvision lays them out, its test part reversed."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for start, order in (("train", 1), ("t10k", -1)):
        pixels, labels = PIXELS[::order], bytes([3, 1, 2, 9])[::order]
        header = struct.pack(">IIII", 0x803, len(pixels), 28, 28)
        (raw / f"{start}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        (raw / f"{start}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, len(labels)) + labels)
    return root


def _mean(image: SourceImage) -> float:
    return float(image.pixels(image.layout(None).channels, None).mean())


def test_set_with_labels_and_names(tmp_path: Path) -> None:
    source = _open("MNIST", _mnist(tmp_path))
    images = list(source.images())
    assert np.array_equal(np.stack([image.pixels(1, None)[..., 0] for image in images]), PIXELS)
    assert [image.label for image in images] == [3, 1, 2, 9]
    assert source.class_names[:2] == ("0 - zero", "1 - one")
    assert images[1].origin == "image 1 of torchvision's MNIST"
    assert [image.label for image in _open("MNIST", tmp_path, "test", limit=2).images()] == [9, 2]


def test_images_of_files_are_small_to_send_and_read_by_several_processes(tmp_path: Path) -> None:
    images = _open("FakeData", tmp_path, limit=3)
    (first, *_) = listed = list(images.images())
    assert len(pickle.dumps(first)) < 500
    assert str(first.layout(None)) == "224x224 RGB"
    assert isinstance(first.label, int) and images.class_names == ()
    assert list(ordered_map(_mean, listed, workers=2, chunk_size=1)) == [_mean(image) for image in listed]


def test_minus_one_is_no_label(recorded: list[dict[str, object]], tmp_path: Path) -> None:
    images = _open("SVHN", tmp_path, "unlabeled")
    assert not images.labelled and images.class_names == ()
    assert [image.label for image in images.images()] == [None] * 3
    some = _open("SVHN", tmp_path, "train+unlabeled", limit=1)
    assert not some.labelled and some.class_names == ()


def test_download_happens_once_if_asked_for(recorded: list[dict[str, object]], tmp_path: Path) -> None:
    images = _open("SVHN", tmp_path, "extra")
    assert recorded == [{"root": str(tmp_path), "split": "extra", "download": False}]
    assert images.class_names == ("a", "b")
    assert next(iter(images.images())).pixels(3, None).shape == (8, 8, 3)
    list(_open("SVHN", tmp_path / "new", download=True).images())
    assert [call["download"] for call in recorded[1:]] == [True, False]


def test_errors_of_a_set_become_one_line(recorded: list[dict[str, object]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"SVHN cannot be opened in .*train.mat; give --root, or --download") as caught:
        _open("SVHN", tmp_path, "broken")
    assert "\n" not in str(caught.value)
    last = list(_open("SVHN", tmp_path).images())[2]
    with pytest.raises(ValueError, match=r"image 2 of torchvision's SVHN cannot be read: lost"):
        last.pixels(3, None)


@pytest.mark.parametrize(
    ("name", "split", "download", "message"),
    [
        ("Cifar10", None, False, "has no set 'Cifar10' that could be packed; it has .*CIFAR10, CIFAR100"),
        ("Kinetics", None, False, "has no set 'Kinetics'"),
        ("VisionDataset", None, False, "has no set 'VisionDataset'"),
        ("FakeData", "train", False, "--split=train: torchvision's FakeData has no splits"),
        ("FakeData", None, True, "torchvision cannot download FakeData"),
        ("MNIST", "extra", False, "--split=extra is unknown; torchvision's MNIST has train, test"),
        ("EMNIST", None, False, "EMNIST cannot be opened without split; give --split"),
        ("STL10", "extra", False, "STL10 cannot be opened .*extra"),
    ],
)
def test_bad_options(tmp_path: Path, name: str, split: str | None, download: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _open(name, tmp_path, split, download)
