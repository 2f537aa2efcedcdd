"""Images that break, data sets that vanish and workers that are killed while training reads."""

import itertools
import multiprocessing
import os
import shutil
import signal
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from image_sets import noise, write_images
from torch import Tensor

from dnnlib.images.codec import encode_png
from torch_utils import distributed
from torch_utils.distributed import PeerError
from training.data.stream import MAX_BROKEN, DataError, ImageDataset, read_ahead, stream
from training.launch import join

COUNT = 24
EPOCH = 2 * COUNT  # flipped images too
Workers = Callable[[], list[BaseProcess]]
Item = tuple[bytes, bytes]  # an image and its label


def _name(index: int) -> str:
    return f"00000/img{index:08d}.png"


def _write(dest: Path, first: int = 0, force: bool = False) -> Path:
    return write_images(dest, map(noise, range(first, first + COUNT)), COUNT, force=force)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return _write(tmp_path / "data.zip")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _write(tmp_path / "data")


def _damage(path: Path, *indices: int) -> None:
    """Change a byte of these images in a zip, in place."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        for index in indices:
            content[archive.getinfo(_name(index)).header_offset + 150] ^= 1
    path.write_bytes(content)


def _items(dataset: ImageDataset) -> list[Item]:
    return [(image.tobytes(), label.tobytes()) for image, label in map(dataset.__getitem__, range(len(dataset)))]


def _stream(dataset: ImageDataset, **options: object) -> Iterator[tuple[Tensor, Tensor]]:
    given = {"seed": 3, "start_nimg": 0, "batch_size": 4, "micro_batch": 2} | options
    return stream(dataset, **given)  # type: ignore[arg-type]


def _take(batches: Iterator[tuple[Tensor, Tensor]], count: int) -> list[Item]:
    """Return the first images of a stream."""
    pairs = itertools.chain.from_iterable(zip(images, labels, strict=True) for images, labels in batches)
    return [(image.numpy().tobytes(), label.numpy().tobytes()) for image, label in itertools.islice(pairs, count)]


def _replaced(items: list[Item], pristine: list[Item], stand_ins: dict[int, int]) -> list[Item]:
    """Return the undamaged stream with other images, by their index, in the place of some."""
    return [pristine[stand_ins.get(index, index)] for index in map(pristine.index, items)]


def _declare_huge_size(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[16:24] = (12_000).to_bytes(4) * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4)
    path.write_bytes(content)


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "vanished": (Path.unlink, "cannot be read: No such file"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:100]), "has 100 bytes, not "),
    "another image": (lambda path: path.write_bytes(encode_png(noise(0) // 99)), "has "),
    "damaged": (
        lambda path: path.write_bytes(path.read_bytes()[:99] + bytes(path.stat().st_size - 99)),
        "is damaged (",
    ),
    "huge": (_declare_huge_size, "is 12000x12000, not 16x8 RGB"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "is no ordinary file"),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_file_that_breaks_is_named_and_replaced(folder: Path, kind: str) -> None:
    dataset = ImageDataset(folder, use_labels=True, mirror=True)
    pristine, lines = _items(dataset), list[str]()
    expected = _take(_stream(dataset), EPOCH)
    break_it, problem = BREAKS[kind]
    break_it(folder / _name(5))
    tracemalloc.start()
    found = _take(_stream(dataset, on_broken=lines.append), 2 * EPOCH)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert found[:EPOCH] == _replaced(expected, pristine, {5: 6, COUNT + 5: COUNT + 6})
    (line,) = lines  # although it comes four times
    assert line.startswith(f"Warning: {_name(5)} in {folder} {problem}")
    assert line.endswith(f"; {_name(6)} is used in its place")
    assert list(dataset.broken) == [_name(5)]


@pytest.mark.parametrize("workers", [0, 2])
def test_order_of_all_other_images_stays(data: Path, workers: int) -> None:
    whole = ImageDataset(data, use_labels=True, mirror=True)
    pristine, expected = _items(whole), _take(_stream(whole), 3 * EPOCH)
    _damage(data, 7, 8, COUNT - 1)
    dataset, lines = ImageDataset(data, use_labels=True, mirror=True), list[str]()
    stand_ins = {7: 9, 8: 9, COUNT - 1: 0}
    stand_ins |= {COUNT + index: COUNT + other for index, other in stand_ins.items()}
    wanted = _replaced(expected, pristine, stand_ins)
    assert _take(_stream(dataset, num_workers=workers, on_broken=lines.append), 3 * EPOCH) == wanted
    assert sorted(line.split()[1] + line.split()[-6] for line in lines) == [
        _name(7) + _name(9), _name(8) + _name(9), _name(COUNT - 1) + _name(0),
    ]  # fmt: skip
    assert all(f"in {data} cannot be read: Bad CRC-32" in line for line in lines)


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_broken_images_end_the_stream(data: Path, workers: int, workers_of: Workers) -> None:
    dataset, lines = ImageDataset(data), list[str]()
    _damage(data, *range(0, COUNT, 2))
    with pytest.raises(DataError, match=rf"^more than {MAX_BROKEN} images are broken in .*data.zip: ") as caught:
        _take(_stream(dataset, num_workers=workers, micro_batch=1, on_broken=lines.append), EPOCH)
    assert not workers_of()
    message = str(caught.value)
    assert len(lines) == len(dataset.broken) == MAX_BROKEN + 1
    assert all(name in message for name in dataset.broken)
    assert "Copy the data set again" in message and "\n" not in message


def test_data_set_with_few_damaged_images_can_be_opened(data: Path) -> None:
    """Wherever the damage is: a run must be able to resume."""
    whole = ImageDataset(data, use_labels=True)
    hashed = whole.content_hash()
    _damage(data, *range(MAX_BROKEN))
    content = bytearray(data.read_bytes())
    content[0:120] = bytes(120)  # the first image's header, and what the zip says before it
    data.write_bytes(content)
    dataset = ImageDataset(data, use_labels=True)
    assert (dataset.spec, len(dataset), dataset.content_hash()) == (whole.spec, len(whole), hashed)
    assert np.array_equal(dataset.load_or_substitute(0)[0], whole.image(MAX_BROKEN))
    with pytest.raises(ValueError, match="Bad CRC"):
        dataset.image(3)  # without a replacement
    _damage(data, MAX_BROKEN)
    with pytest.raises(ValueError, match=rf"more than 10 images are broken in .*{_name(0)}, .*Copy the data set again"):
        ImageDataset(data)


@pytest.fixture
def workers_of() -> Iterator[Workers]:
    """Give a function that returns the processes that this test has started."""
    before = set(multiprocessing.active_children())
    yield lambda: [child for child in multiprocessing.active_children() if child not in before]
    assert set(multiprocessing.active_children()) == before  # they have ended with the stream


def _fail_at_2(fail: Callable[[], None], key: int) -> int:
    if key == 2:
        fail()
    return key


def _lack_memory() -> None:
    raise RuntimeError("unable to write to file </torch_1>: No space left on device (28)")


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "DataLoader worker .* exited"),
        (_lack_memory, "RuntimeError: unable to write"),
    ],
)
def test_failing_worker_is_an_error_in_one_line(fail: Callable[[], None], reason: str, workers_of: Workers) -> None:
    items = read_ahead(partial(_fail_at_2, fail), iter(range(9)), num_workers=1, pin_memory=False)
    assert next(items) == 0
    time.sleep(0.3)  # what runs meanwhile, such as an optimizer step, is not interrupted
    with pytest.raises(DataError, match=rf"^the processes that read images failed: {reason}.*--workers") as caught:
        assert list(items) == [1]
    assert "\n" not in str(caught.value)
    assert not workers_of()


def test_ctrl_c_and_a_removed_zip_leave_the_workers_alone(data: Path, workers_of: Workers) -> None:
    dataset = ImageDataset(data)
    expected = _take(_stream(dataset), EPOCH)
    batches = _stream(dataset, num_workers=2)
    first = _take(itertools.islice(batches, 4), 8)  # all workers have opened it
    assert len(workers_of()) == 2
    for worker in workers_of():
        os.kill(worker.pid, signal.SIGINT)  # type: ignore[arg-type]
    data.unlink()
    assert first + _take(batches, EPOCH - 8) == expected


def _replace(data: Path) -> None:
    _write(data, first=100, force=True)


def _overwrite(data: Path) -> None:
    data.write_bytes(_write(data.parent / "other.zip", first=100).read_bytes())


@pytest.mark.parametrize(
    ("name", "change", "workers", "taken", "message"),
    [
        (
            "data.zip",
            Path.unlink,
            2,
            0,
            "data.zip cannot be read: No such file or directory. It could be read before: put",
        ),
        ("data.zip", _replace, 2, 0, "data.zip has been replaced since it was opened; put the original back"),
        ("data.zip", _overwrite, 0, 0, "data.zip has been replaced since it was opened"),
        ("data.zip", _overwrite, 2, 8, "data.zip has been replaced since it was opened"),
        (
            "data.zip",
            lambda path: os.truncate(path, 999),
            0,
            0,
            "data.zip is a damaged zip file .* It could be read before",
        ),
        ("data", lambda path: path.rename(path.parent / "elsewhere"), 2, 8, "data is gone; put it back"),
    ],
)
def test_another_data_set_in_its_place_ends_the_stream(tmp_path, name, change, workers, taken, message) -> None:
    """Before a worker has opened it, or after."""
    path = _write(tmp_path / name)
    dataset = ImageDataset(path)
    batches = _stream(dataset, num_workers=workers)
    _take(itertools.islice(batches, taken // 2), taken)
    change(path)
    with pytest.raises(DataError, match=message) as caught:
        _take(batches, EPOCH)
    assert "\n" not in str(caught.value)
    assert not dataset.broken


def test_touched_or_copied_data_set_can_still_be_read(data: Path) -> None:
    dataset = ImageDataset(data)
    expected = _take(_stream(dataset), EPOCH)
    batches = _stream(dataset, num_workers=1)
    first = _take(itertools.islice(batches, 1), 2)
    os.utime(data, (0, 0))
    assert first + _take(itertools.islice(batches, 3), 6) == expected[:8]
    shutil.copy(data, data.parent / "copy.zip")
    os.replace(data.parent / "copy.zip", data)
    assert _take(_stream(dataset, num_workers=1), EPOCH) == expected


def _join_with_own_copy(folder: Path) -> None:
    with pytest.raises(PeerError, match="the images of process 1 differ from those of process 0"):
        join(ImageDataset(folder / f"{os.environ['RANK']}.zip"), torch.device("cpu"))
    (folder / os.environ["RANK"]).touch()
    distributed.shutdown()


def test_processes_with_different_copies_do_not_train(tmp_path: Path) -> None:
    for rank in (0, 1):
        _write(tmp_path / f"{rank}.zip", first=rank)
    distributed.spawn(_join_with_own_copy, 2, tmp_path)
    assert (tmp_path / "0").exists() and (tmp_path / "1").exists()
