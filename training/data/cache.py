"""Decides where a data set keeps its images decoded (--cache), and fills that place."""

import contextlib
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dnnlib.parallel import available_cpus
from dnnlib.text import format_bytes
from metrics.cache import default_folder
from torch_utils.distributed import local_world_size
from training.data.dataset import ImageDataset
from training.data.decoded import CacheLocation, Decoded, empty, from_file, write_file
from training.data.files import MAX_BROKEN
from training.data.workers import DataError, read_ahead

if sys.platform != "win32":
    import fcntl

SMALL_BYTES = 64 * 2**20  # goes to the GPU without a file in the cache folder
MEMORY_BYTES = 256 * 2**20  # that the processes of a run on the CPU may fill
AUTO_FILE_BYTES = 16 * 2**30  # largest file made without being asked for
AUTO_DEVICE_SHARE, DEVICE_SHARE = 1 / 8, 1 / 2  # of free memory, unasked and asked for
AUTO_DISK_SHARE, DISK_SHARE = 1 / 4, 0.9  # of free disk space, likewise

_CHUNK_BYTES = 2**20  # decoded at once; of them, every process has a few in shared memory
_FEW_BYTES = 32 * 2**20  # decoded faster than processes start
_MAX_WORKERS = 16
_KEPT_SEC = 30 * 86_400.0  # an unused file is removed after so long, when another one is made


def cache_decoded(
    dataset: ImageDataset,
    mode: str,  # auto, gpu, ram or none
    device: torch.device,
    workers: int = 0,  # processes that will read ahead
    say: Callable[[str], None] = print,  # gets lines for people
) -> None:
    """Make a data set keep its images decoded, where and as far as that is possible; they stay the same.

    auto keeps them on the GPU where they take a small part of its memory, else in a file if it is not too large; without
    a GPU, small sets in the memory of each process. Images that cannot be decoded are left to their reader.
    """
    num_bytes = math.prod(dataset.shape)
    place, reason = choose(mode, num_bytes, device, workers)
    if reason:
        say(f"--cache={mode}: {reason}")
    try:
        if place is CacheLocation.MEMORY:
            dataset.cache = empty(dataset.shape)
        elif place is CacheLocation.FILE:
            dataset.cache = _file(dataset, say)
        elif place is CacheLocation.DEVICE:
            dataset.cache = _on_device(dataset, device, say)
    except (OSError, ValueError, torch.OutOfMemoryError) as error:
        text = " ".join(str(error).split())
        say(f"--cache={mode}: images are decoded each time they are read, as they cannot be kept: {text}")


def choose(mode: str, num_bytes: int, device: torch.device, workers: int) -> tuple[CacheLocation | None, str]:
    """Return where to keep images of so many bytes, None = nowhere, and why it is not where it was asked for."""
    if mode == "none":
        return None, ""
    if mode == "auto" and device.type != "cuda":
        return (CacheLocation.MEMORY if num_bytes * max(workers, 1) <= MEMORY_BYTES else None), ""
    is_auto, reason = mode == "auto", ""
    if mode != "ram":
        if num_bytes <= _free_bytes(device) * (AUTO_DEVICE_SHARE if is_auto else DEVICE_SHARE):
            return CacheLocation.DEVICE, ""
        reason = f"decoded, the images take {format_bytes(num_bytes)}, too much for the memory of {device}"
    free = _free_disk_bytes(default_folder())
    if num_bytes > free * (AUTO_DISK_SHARE if is_auto else DISK_SHARE):
        reason = f"decoded, the images take {format_bytes(num_bytes)}; {default_folder()} has {format_bytes(free)} left"
        return None, "" if is_auto else f"{reason}. They are decoded each time they are read"
    if is_auto and num_bytes > AUTO_FILE_BYTES:
        return None, ""
    return CacheLocation.FILE, "" if is_auto or not reason else f"{reason}. They are kept in a file"


def device_bytes(dataset: ImageDataset, mode: str, device: torch.device) -> int:
    """Return how much of the device's memory the images will take."""
    num_bytes = math.prod(dataset.shape)
    return num_bytes if choose(mode, num_bytes, device, 0)[0] is CacheLocation.DEVICE else 0


def _on_device(dataset: ImageDataset, device: torch.device, say: Callable[[str], None]) -> Decoded:
    """Return the images in the device's memory; large sets come from the file, which is soon read the next time."""
    num_bytes = math.prod(dataset.shape)
    if num_bytes > SMALL_BYTES:
        with contextlib.suppress(OSError):
            kept = _file(dataset, say)
            return Decoded(kept.pixels.to(device), kept.is_valid, CacheLocation.DEVICE)
    pixels = torch.empty(dataset.shape, dtype=torch.uint8, device=device)
    masks, start = [], 0
    for part, is_valid in _decoded_parts(dataset, available_cpus() // local_world_size()):
        pixels[start : start + len(part)] = part.to(device)
        masks.append(is_valid)
        start += len(part)
    return Decoded(pixels, np.concatenate(masks), CacheLocation.DEVICE)


def _file(dataset: ImageDataset, say: Callable[[str], None]) -> Decoded:
    """Return the images of the file in the cache folder; the first process that wants it writes it."""
    folder = default_folder() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{dataset.pixel_hash()[:32]}.npy"
    kept = from_file(path, dataset.shape)
    if kept is None:
        with _one_process(folder):
            kept = from_file(path, dataset.shape) or _new_file(dataset, path, say)
    with contextlib.suppress(OSError):
        os.utime(path)
    return kept


def _new_file(dataset: ImageDataset, path: Path, say: Callable[[str], None]) -> Decoded:
    for other in path.parent.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - other.stat().st_mtime > _KEPT_SEC:
                other.unlink()
    say(f"Decoding {dataset.num_files:,} images once, into {path} ({format_bytes(math.prod(dataset.shape))})")
    write_file(path, dataset.shape, _decoded_parts(dataset, available_cpus()))
    kept = from_file(path, dataset.shape)
    if kept is None:
        raise OSError(f"{path} cannot be read back as it was written")
    return kept


class _Decoder(Dataset[tuple[Tensor, Tensor]]):
    """Decoded images, uint8 [count, channels, height, width], of some files, and which of them are there."""

    def __init__(self, dataset: ImageDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, files: range) -> tuple[Tensor, Tensor]:
        pixels = np.zeros((len(files), *self._dataset.shape[1:]), np.uint8)
        is_valid = np.zeros(len(files), bool)
        for place, file_index in enumerate(files):
            with contextlib.suppress(ValueError):  # whoever reads it will say what is wrong
                pixels[place] = self._dataset.image(file_index)
                is_valid[place] = True
        return torch.from_numpy(pixels), torch.from_numpy(is_valid)


def _decoded_parts(dataset: ImageDataset, workers: int) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Yield all images, some at a time, and which of them are there; DataError if too many are not."""
    count, num_bytes = dataset.num_files, math.prod(dataset.shape)
    size = max(_CHUNK_BYTES * count // num_bytes, 1)
    chunks = (range(start, min(start + size, count)) for start in range(0, count, size))
    workers = 0 if workers < 2 or num_bytes <= _FEW_BYTES else min(workers, _MAX_WORKERS)
    missing = 0
    with contextlib.closing(read_ahead(_Decoder(dataset), chunks, workers, pin_memory=False)) as parts:
        for pixels, is_valid in parts:
            missing += len(pixels) - int(is_valid.sum())
            if missing > min(MAX_BROKEN, count - 1):
                raise DataError(f"{missing} or more images in {dataset.path} cannot be read")
            yield pixels, is_valid.numpy()


def _free_bytes(device: torch.device) -> float:
    """Return the free memory of a device; on the CPU, what the machine has in all."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else math.inf


def _free_disk_bytes(folder: Path) -> int:
    """Return the free space where a folder is or would be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


@contextlib.contextmanager
def _one_process(folder: Path) -> Iterator[None]:
    """Let one process in at a time; where folders cannot be locked, all of them."""
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
