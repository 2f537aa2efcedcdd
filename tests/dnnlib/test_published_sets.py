"""CIFAR-10 and STL-10 as their authors publish them, and tar files of images."""

import gzip
import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from image_sets import open_set

from dnnlib.images.codec import encode_png
from dnnlib.sources.image_sources import SourceOptions, open_source

CLASSES = ["airplane", "automobile"]
STL_PARTS = {"train": 3, "test": 2, "unlabeled": 4}


def _tar(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _folder(path: Path, members: dict[str, bytes]) -> Path:
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def _md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def cifar10(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return a small CIFAR-10 whose checksums torchvision expects."""
    rng = np.random.default_rng(0)
    batches = {
        name: pickle.dumps({"data": rng.integers(0, 256, (2, 3072), dtype=np.uint8), "labels": [1, 0]})
        for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    }
    meta = pickle.dumps({"label_names": CLASSES})
    checksums = [[name, _md5(content)] for name, content in batches.items()]
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "train_list", checksums[:-1])
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "test_list", checksums[-1:])
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "meta", torchvision.datasets.CIFAR10.meta | {"md5": _md5(meta)})
    return {f"cifar-10-batches-py/{name}": content for name, content in {**batches, "batches.meta": meta}.items()}


def _stl_pixels(part: str, index: int) -> np.ndarray:
    """Return an image whose values tell row, column and channel apart, uint8 [height, width, channels]."""
    y, x, c = np.meshgrid(np.arange(96), np.arange(96), np.arange(3), indexing="ij")
    return (y + 2 * x + 50 * c + 7 * index + 31 * list(STL_PARTS).index(part)).astype(np.uint8)


@pytest.fixture
def stl10(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return a small STL-10 whose checksums torchvision expects: channel after channel, column after column."""
    members = {
        "class_names.txt": b"airplane\nbird\ncar\n",
        "train_y.bin": bytes([1, 3, 2]),
        "test_y.bin": bytes([2, 2]),
    }
    for part, count in STL_PARTS.items():
        planes = [_stl_pixels(part, index)[:, x, c] for index in range(count) for c in range(3) for x in range(96)]
        members[f"{part}_X.bin"] = b"".join(map(bytes, planes))
    for option in ("train_list", "test_list"):
        names = [name for name, _ in getattr(torchvision.datasets.STL10, option)]
        monkeypatch.setattr(torchvision.datasets.STL10, option, [[name, _md5(members[name])] for name in names])
    return {f"stl10_binary/{name}": content for name, content in members.items()}


def test_cifar10_archive(tmp_path: Path, cifar10: dict[str, bytes]) -> None:
    source = open_set(_tar(tmp_path / "cifar-10-python.tar.gz", cifar10))
    images = list(source.images())
    assert (source.count, source.class_names, str(source.layout)) == (10, tuple(CLASSES), "32x32 RGB")
    assert [image.label for image in images] == [1, 0] * 5
    stored = pickle.loads(cifar10["cifar-10-batches-py/data_batch_2"])["data"]
    assert np.array_equal(images[2].pixels(3, None), stored[0].reshape(3, 32, 32).transpose(1, 2, 0))
    assert images[2].origin == f"image 2 of {tmp_path / 'cifar-10-python.tar.gz'}"
    assert open_set(tmp_path / "cifar-10-python.tar.gz", "test", 1).count == 1


def test_changed_cifar10_archive_is_refused_before_it_is_unpickled(tmp_path: Path, cifar10: dict[str, bytes]) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[object]]:
            return Path.mkdir, (tmp_path / "done",)

    cifar10["cifar-10-batches-py/data_batch_3"] = pickle.dumps({"data": Attack(), "labels": []})
    with pytest.raises(ValueError, match=r"c.tar.gz is not CIFAR10 as published: a file is missing or damaged"):
        open_set(_tar(tmp_path / "c.tar.gz", cifar10))
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize("kind", ["tar", "folder", "renamed folder"])
def test_stl10(tmp_path: Path, stl10: dict[str, bytes], kind: str) -> None:
    if kind == "tar":
        path = _tar(tmp_path / "stl10_binary.tar.gz", stl10)
    else:
        path = _folder(tmp_path, stl10) / "stl10_binary"
        path = path.rename(tmp_path / "stl") if kind == "renamed folder" else path
    source = open_set(path)
    expected = [("train", i) for i in range(3)] + [("unlabeled", i) for i in range(4)]
    for image, (part, index) in zip(source.images(), expected, strict=True):
        assert np.array_equal(image.pixels(3, None), _stl_pixels(part, index))
        assert image.label is None
    assert not source.labelled and source.class_names == ()
    labelled = open_set(path, "train")
    assert [image.label for image in labelled.images()] == [0, 2, 1]
    assert labelled.class_names == ("airplane", "bird", "car")
    with pytest.raises(ValueError, match="extra"):
        open_set(path, "extra")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_of_images(tmp_path: Path, mode: str) -> None:
    pngs = {f"set/{index % 2}/{index}.png": encode_png(np.full((8, 8, 3), index, np.uint8)) for index in range(4)}
    source = open_source(str(_tar(tmp_path / "set.tar", pngs, mode)), SourceOptions(folder_labels=True))
    assert source.class_names == ("0", "1")
    assert [int(image.pixels(3, None)[0, 0, 0]) for image in source.images()] == [0, 2, 1, 3]


def test_tar_that_leads_outside_or_is_cut_off_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"set.tar cannot be unpacked .*outside the destination"):
        open_set(_tar(tmp_path / "set.tar", {"../outside.png": b""}))
    path = _tar(tmp_path / "cut.tar.gz", {"0.png": np.random.default_rng(0).bytes(5000)})
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"cut.tar.gz cannot be unpacked .*; download it again"):
        open_set(path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_tar_that_can_be_read_in_part_only_is_refused(tmp_path: Path, suffix: str) -> None:
    """Each member takes a header and one block, 1,024 bytes."""
    content = _tar(tmp_path / "good.tar", {f"{index}.png": b"png" for index in range(6)}, "w").read_bytes()
    noise = np.random.default_rng(0).bytes(512)
    changed = {
        "damaged or cut off at byte 3,072": [
            content[:3072] + noise + content[3584:],
            content[:3172],
            content[:3072] + bytes(512) + content[3584:],
        ],
        "another tar follows": [content * 2],
    }
    path = tmp_path / f"set.tar{suffix}"
    for message, variants in changed.items():
        for variant in variants:
            path.write_bytes(gzip.compress(variant) if suffix else variant)
            with pytest.raises(ValueError, match=rf"{path} cannot be unpacked to .* \({message}"):
                open_set(path)
    for valid, rest in (
        (content[:6144], b""),
        (content, b"rest"),
        (content + b"padding", b""),
    ):  # as some programs end one
        path.write_bytes(gzip.compress(valid) + rest if suffix else valid + rest)
        assert open_set(path).count == 6


def test_messages_name_the_tar_and_not_where_it_is_unpacked(tmp_path: Path) -> None:
    path = _tar(tmp_path / "set.tar", {"a/0.png": b"no image"})
    (image,) = pickle.loads(pickle.dumps(list(open_set(path).images())))
    with pytest.raises(ValueError, match=rf"a/0.png in {path} is not an image"):
        image.layout(None)
    with pytest.raises(ValueError, match=rf"^{path} contains no images"):
        open_set(_tar(path, {"a.txt": b""}))
