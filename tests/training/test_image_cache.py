"""Cached images: the stream stays the same bit for bit; broken images and unusable folders end the cache, not the run."""

import itertools
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from image_sets import noise, write_images
from tiny_runs import CPU, assert_same
from torch import Tensor

from training.data.cache import CacheLocation, cache_decoded, choose, device_bytes
from training.data.stream import ImageDataset, stream

CUDA = torch.device("cuda", 0)
COUNT = 24
GIB = 2**30


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=["data", "grey.zip"])
def data(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    channels = 1 if "grey" in request.param else 3
    return write_images(tmp_path / request.param, (noise(index, channels=channels) for index in range(COUNT)))


def take(dataset: ImageDataset, **options: Any) -> list[Tensor]:
    given = {"seed": 3, "start_nimg": 0, "batch_size": 8, "micro_batch": 4} | options
    return list(itertools.chain(*itertools.islice(stream(dataset, **given), 3 * COUNT // 4)))


def cached(path: Path, mode: str, **options: Any) -> ImageDataset:
    dataset = ImageDataset(path, **options)
    cache_decoded(dataset, mode, CPU, lambda line: None)
    return dataset


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mode", ["auto", "ram", "none"])
def test_stream_is_the_same_and_reads_each_file_once(data, mode, workers, monkeypatch):
    options: dict[str, Any] = {"use_labels": True, "mirror": True, "max_images": 19, "seed": 4}
    expected = take(ImageDataset(data, **options), start_nimg=24)
    dataset = cached(data, mode, **options)
    if mode != "none":
        monkeypatch.setattr(ImageDataset, "_decode", None)
    assert_same(take(dataset, start_nimg=24, num_workers=workers), expected)
    image = dataset.image(3)
    image[:] = 0  # a copy
    assert dataset.image(3).any()


@pytest.mark.parametrize("data", ["data"], indirect=True)
def test_broken_image_and_unusable_folder_cost_the_cache_only(data: Path, cache: Path) -> None:
    expected, lines = take(ImageDataset(data)), list[str]()
    cache.write_text("in the way")
    dataset = ImageDataset(data)
    cache_decoded(dataset, "ram", CPU, lines.append)
    assert dataset.cache is None and "--cache=ram: images are not cached" in lines[-1]
    assert_same(take(dataset), expected)
    cache.unlink()
    path = data / "00000/img00000007.png"
    path.write_bytes(path.read_bytes()[:99] + bytes(path.stat().st_size - 99))
    for mode in ("ram", "auto"):
        dataset = ImageDataset(data)
        cache_decoded(dataset, mode, CPU, lines.append)
        assert dataset.cache is None and "not cached" in lines[-1] and "img00000007.png in" in lines[-1]
        assert not list(cache.glob("images/*.npy"))
        take(dataset, on_broken=lines.append)
        assert list(dataset.broken) == ["00000/img00000007.png"]


def test_file_is_made_once_and_shared(data: Path, cache: Path) -> None:
    lines = list[str]()
    for options in ({}, {"use_labels": True, "mirror": True}, {"max_images": 9}):  # labels and mirroring do not matter
        cache_decoded(ImageDataset(data, **options), "ram", CPU, lines.append)
    assert ["Decoding" in line for line in lines] == [True, True] and "24 images" in lines[0] and "9 images" in lines[1]
    files = sorted((cache / "images").glob("*.npy"), key=lambda path: -path.stat().st_size)
    dataset = ImageDataset(data)
    np.testing.assert_array_equal(np.load(files[0]), [dataset.image(index) for index in range(COUNT)])


@pytest.mark.parametrize("data", ["data"], indirect=True)
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: os.truncate(path, path.stat().st_size - 1),
        lambda path: path.write_bytes(path.read_bytes().replace(b"}", b"{", 1)),
        lambda path: np.save(path, np.zeros(9, np.uint8)),
    ],
)
def test_damaged_file_is_made_again(data: Path, cache: Path, damage: Callable[[Path], object]) -> None:
    expected = take(cached(data, "ram"))
    (path,) = (cache / "images").glob("*.npy")
    whole = path.read_bytes()
    damage(path)
    assert_same(take(cached(data, "ram")), expected)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("data", ["data"], indirect=True)
def test_unused_files_are_removed_and_auto_writes_none(data: Path, cache: Path) -> None:
    cached(data, "auto")
    assert not cache.exists()
    (cache / "images").mkdir(parents=True)
    old, new = cache / "images" / "old.npy", cache / "images" / "new.npy"
    for path, days in ((old, 31), (new, 29)):
        path.write_bytes(b"x")
        os.utime(path, (0, time.time() - days * 86_400))
    cached(data, "ram")
    assert new.exists() and not old.exists()


@pytest.mark.parametrize("mode", ["ram", "auto"])
def test_pickled_data_set_keeps_the_file_and_nothing_else(data: Path, mode: str) -> None:
    """As workers get it that are not forked."""
    dataset = cached(data, mode)
    pickled = pickle.dumps(dataset)
    copy = pickle.loads(pickled)
    assert len(pickled) < 10_000 and (copy.cache is not None) == (mode == "ram")
    assert_same(take(copy), take(dataset))


@pytest.mark.parametrize(
    ("mode", "device", "gib", "expected", "note"),
    [
        ("auto", CUDA, 1, CacheLocation.DEVICE, ""),
        ("auto", CUDA, 3, CacheLocation.FILE, ""),
        ("auto", CUDA, 17, None, ""),
        ("auto", CPU, 1, None, ""),
        ("auto", CPU, 0.1, CacheLocation.MEMORY, ""),
        ("none", CUDA, 0.1, None, ""),
        ("gpu", CUDA, 7, CacheLocation.DEVICE, ""),
        ("gpu", CUDA, 9, CacheLocation.FILE, "9.0 GiB of images are too much for cuda:0"),
        ("gpu", CPU, 1, CacheLocation.FILE, "there is no GPU"),
        ("gpu", CUDA, 95, None, "has 100.0 GiB left"),
        ("ram", CPU, 89, CacheLocation.FILE, ""),
        ("ram", CPU, 95, None, "has 100.0 GiB left"),
    ],
)
def test_choice(mode, device, gib, expected, note, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (16 * GIB, 0))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100 * GIB))
    location, found = choose(mode, int(gib * GIB), device)
    assert location == expected and bool(found) == bool(note) and note in found
    images = SimpleNamespace(shape=(1, int(gib * GIB), 1, 1))
    assert device_bytes(images, mode, device) == (gib * GIB if expected is CacheLocation.DEVICE else 0)
