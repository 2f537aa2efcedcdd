import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from image_sets import noise, write_images
from torch import Tensor

from dnnlib.images.codec import encode_png
from training.config import DatasetSpec
from training.data.labels import Labels
from training.data.stream import ImageDataset, order, stream

COUNT = 10


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "data.zip", map(noise, range(COUNT)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "data", map(noise, range(COUNT)))


def test_spec_images_and_labels(data: Path, folder: Path) -> None:
    for dataset in (ImageDataset(data, use_labels=True), ImageDataset(folder, use_labels=True)):
        assert dataset.spec == DatasetSpec(8, 16, 3, 3, ("0", "1", "2"))
        assert len(dataset) == dataset.num_files == COUNT
        for index in range(COUNT):
            image, label = dataset[index]
            assert (image.dtype, label.dtype) == (np.uint8, np.float32)
            assert np.array_equal(image, noise(index).transpose(2, 0, 1))
            assert label.tolist() == dataset.labels()[index].tolist() == [float(index % 3 == k) for k in range(3)]
    unlabelled = ImageDataset(data)
    assert unlabelled.spec == DatasetSpec(8, 16, 3)
    assert unlabelled.label(3).shape == (0,) and unlabelled.labels().shape == (COUNT, 0)
    pairs = [[f"00000/img{index:08d}.png", [index, 0.5]] for index in range(COUNT)]
    (folder / "dataset.json").write_text(json.dumps({"labels": pairs}))
    assert ImageDataset(folder, use_labels=True).label(7).tolist() == [7.0, 0.5]


def test_mirror_doubles(data: Path) -> None:
    dataset = ImageDataset(data, use_labels=True, mirror=True)
    assert (len(dataset), dataset.num_files) == (2 * COUNT, COUNT)
    assert np.array_equal(dataset.image(COUNT + 3), dataset.image(3)[:, :, ::-1])
    assert dataset.label(COUNT + 4).tolist() == dataset.labels()[COUNT + 4].tolist() == dataset.label(4).tolist()
    for index in (-1, 2 * COUNT):
        with pytest.raises(IndexError, match=r"only 0\.\.19"):
            dataset.image(index)


def test_subset_depends_on_the_seed_alone(data: Path) -> None:
    def chosen(max_images: int, seed: int) -> list[int]:
        dataset = ImageDataset(data, use_labels=True, max_images=max_images, seed=seed)
        every = [noise(index).tobytes() for index in range(COUNT)]
        indexes = [every.index(dataset.image(k).transpose(1, 2, 0).tobytes()) for k in range(len(dataset))]
        assert dataset.labels().argmax().tolist() == [index % 3 for index in indexes]
        assert dataset.spec.label_dim == 3
        return indexes

    assert chosen(4, 1) == chosen(4, 1) == sorted(chosen(4, 1))
    assert set(chosen(4, 1)) < set(chosen(6, 1))
    assert len({tuple(chosen(4, seed)) for seed in range(5)}) > 1
    assert chosen(COUNT, 1) == list(range(COUNT))
    for wrong in (0, COUNT + 1):
        with pytest.raises(ValueError, match=rf"--subset={wrong}: .* has 10 images"):
            ImageDataset(data, max_images=wrong)


def test_content_hash_follows_the_content_only(data: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.copy(data, tmp_path / "elsewhere" / "other.zip")
    expected = ImageDataset(data, use_labels=True).content_hash()
    assert ImageDataset(moved, use_labels=True).content_hash() == expected
    assert ImageDataset(folder, use_labels=True).content_hash() == expected
    others = {
        ImageDataset(data).content_hash(),
        ImageDataset(data, use_labels=True, mirror=True).content_hash(),
        ImageDataset(data, use_labels=True, max_images=5).content_hash(),
        expected,
    }
    (folder / "00000" / "img00000003.png").write_bytes(encode_png(noise(99)))
    others.add(ImageDataset(folder, use_labels=True).content_hash())
    assert len(others) == 5


def test_labels_that_do_not_fit_matter_only_where_they_are_used(folder: Path) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(content | {"labels": content["labels"][1:]}))
    with pytest.raises(ValueError, match=r"no label for 00000/img00000000.png"):
        ImageDataset(folder, use_labels=True)
    (folder / "dataset.json").write_text(json.dumps(content | {"labels": None}))
    with pytest.raises(ValueError, match=r"--cond needs labels.*--labels-from-folders"):
        ImageDataset(folder, use_labels=True)
    assert len(ImageDataset(folder)) == COUNT


@pytest.mark.parametrize("chosen", [3, slice(1, 4), [0, 4, 4], np.array([2, 1])])
def test_classes_are_read_as_one_hot_labels(chosen: object) -> None:
    classes = np.array([2, 0, 3, 3, 0])
    dense = np.eye(5, dtype=np.float32)[classes]
    labels, vectors = Labels(classes, 5), Labels(dense)
    for ours in (labels, vectors):
        assert np.array_equal(ours[chosen], dense[chosen]) and ours[chosen].dtype == np.float32  # type: ignore[index]
        assert ours.shape == (5, 5) and b"".join(ours.content()) == dense.tobytes()
        assert ours.unused() == [1, 4] and ours.argmax().tolist() == ours.classes().tolist() == classes.tolist()  # type: ignore[union-attr]
        assert np.array_equal(ours.subset(np.array([2, 0]))[:], dense[[2, 0]])


def test_vectors_are_kept() -> None:
    labels = Labels(np.array([[0.5, -1.0], [0.0, 2.0]]))
    assert labels[1].tolist() == [0.0, 2.0] and labels.classes() is None and labels.argmax().tolist() == [0, 1]


def test_order_is_a_permutation_each_epoch_and_can_start_anywhere() -> None:
    indices = list(itertools.islice(order(5, 0, 7), 21))
    epochs = [indices[start : start + 7] for start in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    for start in range(15):
        assert list(itertools.islice(order(5, start, 7), 6)) == indices[start : start + 6]
    assert list(itertools.islice(order(6, 0, 7), 21)) != indices


def _images(batches: Iterator[tuple[Tensor, Tensor]], count: int) -> list[bytes]:
    """Return the first `count` images of a stream, each as its bytes."""
    images = itertools.chain.from_iterable(image for image, _ in batches)
    return [image.numpy().tobytes() for image in itertools.islice(images, count)]


def test_stream_follows_the_order(data: Path) -> None:
    dataset = ImageDataset(data, use_labels=True, mirror=True)
    batches = stream(dataset, seed=3, start_nimg=0, batch_size=6, micro_batch=3)
    indices = order(3, 0, len(dataset))
    for images, labels in itertools.islice(batches, 10):
        assert (images.dtype, images.shape) == (torch.uint8, (3, 3, 8, 16))
        assert (labels.dtype, labels.shape) == (torch.float32, (3, 3))
        for image, label in zip(images, labels, strict=True):
            index = next(indices)
            assert np.array_equal(image, dataset.image(index))
            assert np.array_equal(label, dataset.label(index))


def test_stream_resumes_anywhere_on_any_number_of_ranks(data: Path) -> None:
    dataset = ImageDataset(data)
    full = _images(stream(dataset, seed=3, start_nimg=0, batch_size=4, micro_batch=2), 40)
    assert _images(stream(dataset, seed=3, start_nimg=12, batch_size=4, micro_batch=2), 28) == full[12:]
    assert _images(stream(dataset, seed=3, start_nimg=12, batch_size=8, micro_batch=8), 24) == full[12:36]
    for rank in (0, 1):
        ours = stream(dataset, seed=3, start_nimg=8, batch_size=8, micro_batch=2, rank=rank, world_size=2)
        parts = [full[start : start + 2] for start in range(8 + 2 * rank, 24, 4)]
        assert _images(ours, 8) == list(itertools.chain.from_iterable(parts))


def test_worker_processes_change_nothing(data: Path, folder: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for path in (data, folder):
        dataset = ImageDataset(path)
        dataset.image(0)  # so that the zip is open when the workers start
        here = _images(stream(dataset, seed=3, start_nimg=4, batch_size=4, micro_batch=2), 30)
        there = stream(dataset, seed=3, start_nimg=4, batch_size=4, micro_batch=2, num_workers=2)
        assert _images(there, 30) == here
    assert torch.equal(torch.get_rng_state(), before)
