"""Decodes the images of a data set once and caches them where --cache says."""

import contextlib
import fcntl
import functools
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from enum import Enum, auto
from pathlib import Path

import torch
from numpy.lib.format import write_array_header_1_0
from torch import Tensor
from torch.utils.data import BatchSampler, default_collate

from dnnlib.files import atomic_write
from dnnlib.parallel import available_cpus
from dnnlib.text import format_bytes
from metrics.cache import default_folder
from torch_utils.distributed import local_world_size
from training.data.dataset import DataError, DecodedImages, ImageDataset, map_decoded
from training.data.stream import read_ahead

SMALL_BYTES = 64 * 2**20  # decoded without workers, and on a GPU without a file
MEMORY_BYTES = 256 * 2**20  # that auto caches without a GPU
AUTO_FILE_BYTES = 16 * 2**30  # largest file that auto makes
AUTO_DEVICE_SHARE, DEVICE_SHARE = 1 / 8, 1 / 2  # of free memory, for auto and for gpu
AUTO_DISK_SHARE, DISK_SHARE = 1 / 4, 0.9  # of free disk space, for auto and for ram

_CHUNK_BYTES = 2**20  # decoded at once; every process has a few such chunks in shared memory
_MAX_WORKERS = 16
_UNUSED_SEC = 30 * 86_400.0  # after which a file is removed when another one is made


class CacheLocation(Enum):
    MEMORY = auto()  # of this process and those forked from it
    FILE = auto()  # mapped into the memory of all processes
    DEVICE = auto()  # the GPU


def cache_decoded(dataset: ImageDataset, mode: str, device: torch.device, log: Callable[[str], None] = print) -> None:
    """Set `dataset.cache` as `mode` (auto, gpu, ram, none) and the free space allow; it changes no image.

    `log` gets a line if images are decoded into a file, or cannot be cached as asked for. A data set with a broken image is
    not cached: `stream` handles those.
    """
    location, note = choose(mode, math.prod(dataset.shape), device)
    if note:
        log(f"--cache={mode}: {note}")
    try:
        if location is CacheLocation.MEMORY:
            dataset.cache = _in_memory(dataset)
        elif location is CacheLocation.FILE:
            dataset.cache = _in_file(dataset, log)
        elif location is CacheLocation.DEVICE:
            is_small = math.prod(dataset.shape) <= SMALL_BYTES
            on_host = _in_memory(dataset) if is_small else _in_file(dataset, log)
            dataset.cache = DecodedImages(on_host.pixels.to(device))
    except (OSError, ValueError, torch.OutOfMemoryError) as error:
        text = " ".join(str(error).split())
        log(f"--cache={mode}: images are not cached, but decoded each time they are read: {text}")


def choose(mode: str, num_bytes: int, device: torch.device) -> tuple[CacheLocation | None, str]:
    """Return where to cache so many bytes, None = nowhere, and a note where that is not what `mode` asks for."""
    is_auto, is_gpu, note = mode == "auto", device.type == "cuda", ""
    if mode == "none":
        return None, ""
    if is_auto and not is_gpu:
        return (CacheLocation.MEMORY if num_bytes <= MEMORY_BYTES else None), ""
    if mode != "ram":
        share = AUTO_DEVICE_SHARE if is_auto else DEVICE_SHARE
        if is_gpu and num_bytes <= torch.cuda.mem_get_info(device)[0] * share:
            return CacheLocation.DEVICE, ""
        reason = f"{format_bytes(num_bytes)} of images are too much for {device}" if is_gpu else "there is no GPU"
        note = f"{reason}, caching them in a file"
    folder = default_folder()
    free_bytes = shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free
    if is_auto:
        is_small = num_bytes <= min(AUTO_FILE_BYTES, free_bytes * AUTO_DISK_SHARE)
        return (CacheLocation.FILE if is_small else None), ""
    if num_bytes > free_bytes * DISK_SHARE:
        return None, (
            f"{format_bytes(num_bytes)} of images do not fit into {folder}, which has {format_bytes(free_bytes)} left. They "
            f"are decoded each time they are read"
        )
    return CacheLocation.FILE, note


def device_bytes(dataset: ImageDataset, mode: str, device: torch.device) -> int:
    """Return how much memory of the device the cached images will take."""
    num_bytes = math.prod(dataset.shape)
    return num_bytes if choose(mode, num_bytes, device)[0] is CacheLocation.DEVICE else 0


def _in_memory(dataset: ImageDataset) -> DecodedImages:
    return DecodedImages(torch.cat(list(_decode_all(dataset, available_cpus() // local_world_size()))))


def _in_file(dataset: ImageDataset, log: Callable[[str], None]) -> DecodedImages:
    """Return the images of the file in the cache folder; the first process that needs it makes it, the others wait."""
    folder = default_folder() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{dataset.pixel_hash()[:32]}.npy"
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cached = map_decoded(path, dataset.shape)
        if cached is None:
            _remove_unused(folder)
            size = format_bytes(math.prod(dataset.shape))
            log(f"Decoding {dataset.num_files:,} images once, into {path} ({size})")
            _write_file(path, dataset)
            cached = map_decoded(path, dataset.shape)
    if cached is None:
        raise OSError(f"{path} cannot be read back")
    with contextlib.suppress(OSError):
        os.utime(path)
    return cached


def _write_file(path: Path, dataset: ImageDataset) -> None:
    """Write all images as an .npy; not by mapping it, because a full disk kills a process that writes to mapped memory."""
    with atomic_write(path) as file:
        write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": dataset.shape})
        for pixels in _decode_all(dataset, available_cpus()):
            file.write(pixels.numpy().data)


def _remove_unused(folder: Path) -> None:
    for path in folder.glob("*.npy"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _UNUSED_SEC:
                path.unlink()


def _decode(dataset: ImageDataset, indices: list[int]) -> Tensor:
    """Return images, uint8 [count, channels, height, width]; DataError where one is broken."""
    try:
        return default_collate([dataset.image(index) for index in indices])
    except ValueError as error:
        raise DataError(str(error)) from error


def _decode_all(dataset: ImageDataset, workers: int) -> Iterator[Tensor]:
    """Yield all images without the flipped ones, uint8, some at a time; DataError where one is broken."""
    num_bytes = math.prod(dataset.shape)
    chunks = BatchSampler(range(dataset.num_files), max(_CHUNK_BYTES * dataset.num_files // num_bytes, 1), False)
    workers = 0 if workers < 2 or num_bytes <= SMALL_BYTES else min(workers, _MAX_WORKERS)
    return read_ahead(functools.partial(_decode, dataset), chunks, workers, pin_memory=False)
