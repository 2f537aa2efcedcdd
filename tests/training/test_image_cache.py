"""Kept images: the stream is the same bit for bit, wherever they are kept and whatever is broken; the file is sound."""

import itertools
import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dnnlib.archive.writer import write_dataset
from dnnlib.images.codec import encode_png
from training.data import cache as image_cache
from training.data.cache import cache_decoded, choose, device_bytes
from training.data.decoded import CacheLocation, Decoded, from_file, write_file
from training.data.stream import MAX_BROKEN, DataError, ImageDataset, stream

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
COUNT = 24
KINDS = {"auto": CacheLocation.MEMORY, "ram": CacheLocation.FILE, "gpu": CacheLocation.DEVICE, "none": None}
GIB = 2**30


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _name(index: int) -> str:
    return f"00000/img{index:08d}.png"


def _write(dest: Path, channels: int = 3) -> Path:
    rng = np.random.default_rng(0)
    with write_dataset(dest, ["a", "b", "c"]) as writer:
        for index in range(COUNT):
            writer.add(encode_png(rng.integers(0, 256, (8, 16, channels), dtype=np.uint8)), index % 3)
    return dest


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return _write(tmp_path / "data.zip")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _write(tmp_path / "data")


def _take(dataset: ImageDataset, count: int = 3 * COUNT, **options: Any) -> list[tuple[Tensor, Tensor]]:
    given = {"seed": 3, "start_nimg": 0, "batch_size": 8, "micro_batch": 4} | options
    batches = stream(dataset, **given)
    return list(itertools.islice(batches, count // given["micro_batch"]))


def _assert_same(ours: list[tuple[Tensor, Tensor]], theirs: list[tuple[Tensor, Tensor]]) -> None:
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.dtype == b.dtype and torch.equal(a, b)


def _kept(path: Path, mode: str, workers: int = 0, **options: Any) -> ImageDataset:
    dataset = ImageDataset(path, **options)
    cache_decoded(dataset, mode, CPU, workers, lambda line: None)
    assert (dataset.cache and dataset.cache.place) == KINDS[mode]
    return dataset


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mode", KINDS)
def test_stream_is_the_same(data: Path, mode: str, workers: int) -> None:
    options: dict[str, Any] = {"use_labels": True, "mirror": True, "max_images": 19, "seed": 4}
    plain, dataset = ImageDataset(data, **options), _kept(data, mode, workers, **options)
    for stream_options in ({"start_nimg": 0}, {"start_nimg": 24, "rank": 1, "world_size": 2}):
        _assert_same(_take(dataset, num_workers=workers, **stream_options), _take(plain, **stream_options))


@pytest.mark.parametrize("mode", ["auto", "ram", "gpu"])
def test_grey_images_of_a_folder(tmp_path: Path, mode: str) -> None:
    path = _write(tmp_path / "grey", channels=1)
    _assert_same(_take(_kept(path, mode)), _take(ImageDataset(path)))


@pytest.mark.parametrize("mode", ["auto", "ram", "gpu"])
def test_images_are_read_from_their_files_once(data: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = _kept(data, mode)
    _take(dataset, COUNT)

    def fail(*arguments: object) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr(ImageDataset, "_decode", fail)
    _take(dataset)
    image = dataset.image(3)
    image[:] = 0  # a copy
    assert dataset.image(3).any()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mode", ["auto", "ram", "gpu"])
def test_broken_images_are_reported_and_replaced_alike(folder: Path, mode: str, workers: int) -> None:
    for index in (7, 8, COUNT - 1):
        path = folder / _name(index)
        path.write_bytes(path.read_bytes()[:99] + bytes(path.stat().st_size - 99))
    plain, dataset = ImageDataset(folder, mirror=True), _kept(folder, mode, mirror=True)
    expected, lines = list[str](), list[str]()
    wanted = _take(plain, on_broken=expected.append)
    _assert_same(_take(dataset, num_workers=workers, on_broken=lines.append), wanted)
    assert sorted(lines) == sorted(expected) and len(lines) == 3
    assert dataset.broken == plain.broken


@pytest.mark.parametrize("mode", ["ram", "gpu"])
def test_too_many_broken_images_end_the_stream_not_the_start(folder: Path, cache: Path, mode: str) -> None:
    dataset, lines = ImageDataset(folder), list[str]()
    for index in range(MAX_BROKEN + 1):
        (folder / _name(index)).write_bytes(b"")
    cache_decoded(dataset, mode, CPU, 0, lines.append)
    assert dataset.cache is None and not list(cache.glob("images/*"))
    assert lines[-1].startswith(
        f"--cache={mode}: images are decoded each time they are read, as they cannot be kept: 11 or"
    )
    with pytest.raises(DataError, match=f"more than {MAX_BROKEN} images are broken"):
        _take(dataset, on_broken=lambda line: None)


def test_file_is_made_once_and_shared(data: Path, cache: Path, folder: Path) -> None:
    lines = list[str]()
    for path, mirror in ((data, False), (data, True), (folder, False)):  # labels and mirroring do not matter
        cache_decoded(ImageDataset(path, use_labels=mirror, mirror=mirror), "ram", CPU, 0, lines.append)
    (path,) = (cache / "images").iterdir()
    assert len(lines) == 1 and str(path) in lines[0] and "24 images" in lines[0]
    cache_decoded(ImageDataset(data, max_images=9), "ram", CPU, 0, lines.append)
    assert len(lines) == 2 and len(list((cache / "images").iterdir())) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: os.truncate(path, path.stat().st_size - 1),
        lambda path: os.truncate(path, path.stat().st_size + 1),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes().replace(b"}", b"{", 1)),
        lambda path: np.save(path, np.zeros(9, np.uint8)),
        lambda path: np.save(path, np.load(path).astype(np.int8)),
    ],
)
def test_file_of_another_shape_or_size_is_made_again(data: Path, cache: Path, damage: Callable[[Path], object]) -> None:
    expected = _take(_kept(data, "ram"))
    (path,) = (cache / "images").iterdir()
    whole = path.read_bytes()
    damage(path)
    _assert_same(_take(_kept(data, "ram")), expected)
    assert path.read_bytes() == whole


def test_unused_files_are_removed(data: Path, cache: Path) -> None:
    (cache / "images").mkdir(parents=True)
    old, new = cache / "images" / "old.npy", cache / "images" / "new.npy"
    for path, days in ((old, 31), (new, 29)):
        path.write_bytes(b"x")
        os.utime(path, (0, time.time() - days * 86_400))
    _kept(data, "ram")
    assert new.exists() and not old.exists()


def test_folder_that_cannot_be_written_costs_a_line(data: Path, cache: Path) -> None:
    cache.write_text("in the way")
    lines, dataset = list[str](), ImageDataset(data)
    cache_decoded(dataset, "ram", CPU, 0, lines.append)
    assert dataset.cache is None and len(lines) == 1 and "cannot be kept" in lines[0]
    _take(dataset)


def test_full_disk_leaves_nothing(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    lines, dataset = list[str](), ImageDataset(data)
    cache_decoded(dataset, "ram", CPU, 0, lines.append)
    assert dataset.cache is None and "No space left" in lines[-1]
    assert not list((cache / "images").iterdir())


def test_unasked_nothing_is_written(data: Path, cache: Path) -> None:
    _take(_kept(data, "auto"))
    _take(_kept(data, "gpu"))
    assert not cache.exists()


def test_several_processes_make_one_file(data: Path, cache: Path) -> None:
    code = (
        "import sys, torch; from training.data.stream import ImageDataset; from training.data.cache import cache_decoded;"
        "d = ImageDataset(sys.argv[1]); cache_decoded(d, 'ram', torch.device('cpu')); print(d.cache.is_valid.sum())"
    )
    command = [sys.executable, "-c", code, str(data)]
    root = Path(__file__).parents[2]
    started = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0] for process in started]
    assert all(output.splitlines()[-1] == str(COUNT) for output in outputs)
    assert sum("Decoding" in output for output in outputs) == 1
    assert len(list((cache / "images").iterdir())) == 1


def test_pickled_data_set_keeps_the_file_and_nothing_else(data: Path) -> None:
    """As processes get it where they are not forked."""
    expected = _take(ImageDataset(data))
    for mode in ("ram", "auto", "gpu"):
        dataset = _kept(data, mode)
        _take(dataset)
        pickled = pickle.dumps(dataset)
        assert len(pickled) < 10_000
        copy = pickle.loads(pickled)
        assert isinstance(copy.cache, Decoded)
        assert copy.cache.place == (CacheLocation.FILE if mode == "ram" else CacheLocation.MEMORY)
        assert copy.cache.is_valid.all() == (mode == "ram")
        _assert_same(_take(copy), expected)


def test_file_is_an_npy_of_pixels_and_which_are_there(tmp_path: Path) -> None:
    shape, path = (3, 1, 2, 2), tmp_path / "f.npy"
    pixels, is_valid = torch.arange(12, dtype=torch.uint8).reshape(shape), np.array([True, False, True])
    write_file(path, shape, [(pixels[:2], is_valid[:2]), (pixels[2:], is_valid[2:])])
    assert np.load(path, mmap_mode="r").tolist() == [*range(12), 1, 0, 1]
    found = from_file(path, shape)
    assert found is not None and torch.equal(found.pixels, pixels) and found.is_valid.tolist() == is_valid.tolist()
    found.pixels[0] = 99  # of this process alone
    assert np.load(path)[0] == 0
    assert from_file(tmp_path / "none", shape) is None


@pytest.mark.parametrize(
    ("mode", "device", "gib", "expected", "line"),
    [
        ("auto", CUDA, 1, CacheLocation.DEVICE, ""),
        ("auto", CUDA, 3, CacheLocation.FILE, ""),
        ("auto", CUDA, 17, None, ""),
        ("auto", CPU, 1, None, ""),
        ("auto", CPU, 0.1, CacheLocation.MEMORY, ""),
        ("none", CUDA, 0.1, None, ""),
        ("gpu", CUDA, 7, CacheLocation.DEVICE, ""),
        ("gpu", CUDA, 9, CacheLocation.FILE, r"9.0 GiB, too much for the memory of cuda:0. They are kept in a file"),
        ("gpu", CUDA, 95, None, r"95.0 GiB; .* has 100.0 GiB left. They are decoded each time"),
        ("ram", CPU, 89, CacheLocation.FILE, ""),
        ("ram", CPU, 95, None, r"95.0 GiB; .* has 100.0 GiB left. They are decoded each time"),
    ],
)
def test_choice(
    mode: str,
    device: torch.device,
    gib: float,
    expected: CacheLocation | None,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_cache, "_free_bytes", lambda device: 16 * GIB)
    monkeypatch.setattr(image_cache, "_free_disk_bytes", lambda folder: 100 * GIB)
    place, reason = choose(mode, int(gib * GIB), device, 2)
    assert place == expected
    assert bool(reason) == bool(line)
    assert re.search(line, reason)


def test_memory_of_the_device_is_foretold(data: Path) -> None:
    dataset = ImageDataset(data)
    assert device_bytes(dataset, "gpu", CPU) == COUNT * 3 * 8 * 16
    assert device_bytes(dataset, "auto", CPU) == device_bytes(dataset, "ram", CPU) == 0
