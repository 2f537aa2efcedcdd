"""Times the stream of real images: as published, and as ours by cache mode and number of worker processes."""

import contextlib
import io
import itertools
import os
import sys
import tempfile
import zipfile
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common import SIZES_PX, Settings, run_benchmark, shared_options, words
from benchmarks.compare import Way, compared
from benchmarks.modes import BASELINE
from benchmarks.rows import Row
from benchmarks.timing import Call
from dnnlib.dataclass_values import require
from training.config import CACHE_MODES
from training.data.cache import cache_decoded
from training.data.dataset import ImageDataset
from training.data.stream import order, stream

PRESETS = ("cifar", "church128")
BATCH = {"cpu": "32", "cuda": "32"}
PUBLISHED_WORKERS = 3
NUM_IMAGES, QUICK_IMAGES = 2000, 16  # of the set, which every turn reads once

Batches = Generator[tuple[Tensor, Tensor], None, None]


def write_images(path: Path, size_px: int, count: int) -> None:
    """A zip in the dataset format, of soft colour fields with some noise, about as hard to decode as photographs."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index in range(count):
            field = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((size_px, size_px))
            noisy = np.asarray(field, np.int16) + rng.integers(-6, 7, (size_px, size_px, 3), dtype=np.int16)
            file = io.BytesIO()
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "PNG")
            archive.writestr(f"{index // 1000:05d}/img{index:08d}.png", file.getvalue())


class PlainImages(Dataset[tuple[np.ndarray, np.ndarray]]):
    """The published way: every image is read from the zip and decoded each time it is wanted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with zipfile.ZipFile(path) as archive:
            self.names = archive.namelist()
        self.archive: zipfile.ZipFile | None = None  # opened by each process

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if self.archive is None:
            self.archive = zipfile.ZipFile(self.path)
        with self.archive.open(self.names[index]) as file:
            return np.array(Image.open(file)).transpose(2, 0, 1), np.zeros(0, np.float32)


def published(path: Path, batch: int, workers: int, device: torch.device) -> Batches:
    """Return the published stream: processes that read two batches ahead each."""
    dataset = PlainImages(path)
    loader = DataLoader(
        dataset,
        batch,
        sampler=order(0, 0, len(dataset)),  # type: ignore[arg-type]
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )
    for images, labels in loader:
        yield images.to(device), labels.to(device)


def ours(path: Path, batch: int, cache: str, workers: int, device: torch.device) -> Batches:
    """Return the stream of training."""
    dataset = ImageDataset(path)
    cache_decoded(dataset, cache, device, log=lambda line: None)
    yield from stream(
        dataset, seed=0, start_nimg=0, batch_size=batch, micro_batch=batch, num_workers=workers, device=device
    )


def take(batches: Batches, count: int) -> Call:
    """Return a call that takes so many micro-batches."""

    def run() -> None:
        for _ in range(count):
            next(batches)

    return run


def measure_streams(settings: Settings, name: str, path: Path, variants: list[tuple[str, int]]) -> Iterator[Row]:
    """Yield all variants in turn, each reading as many images a turn as there are."""
    count = QUICK_IMAGES if settings.is_quick else NUM_IMAGES
    write_images(path, SIZES_PX[name], count)
    plain_workers = 0 if settings.is_quick else PUBLISHED_WORKERS
    for batch in settings.batches:
        require(batch <= count, f"--batch={batch} is more than the {count} images of the set")
        turns = count // batch
        with contextlib.ExitStack() as stack:
            streams = {BASELINE: published(path, batch, plain_workers, settings.device)}
            for cache, workers in variants:
                streams[f"{cache}, {workers} workers"] = ours(path, batch, cache, workers, settings.device)
            for batches in streams.values():
                stack.enter_context(contextlib.closing(batches))
            ways = {variant: Way(take(batches, turns), batch * turns) for variant, batches in streams.items()}
            for row in compared(settings, name, "load", ways, with_memory=False):
                yield replace(row, batch=batch)


def measure(settings: Settings, caches: list[str], workers: list[int]) -> Iterator[Row]:
    """Yield all presets' images, in a folder that is removed afterwards, decoded ones included."""
    is_gpu = settings.device.type == "cuda"
    variants = [(cache, count) for cache, count in itertools.product(caches, workers) if cache != "gpu" or is_gpu]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STYLEFORMER_CACHE_DIR"] = folder
        for name in settings.presets:
            yield from measure_streams(settings, name, Path(folder) / f"{name}.zip", variants)


@click.command()
@shared_options
@click.option("--cache", default=",".join(CACHE_MODES), show_default=True, help="Cache modes; gpu needs one.")
@click.option("--workers", default="0,1,2", show_default=True, help="Numbers of processes that read ahead.")
def main(cache: str, workers: str, **options: Any) -> None:
    """Time the stream of real images: as published (three processes, decoding each time) and as ours, in turn."""

    def checked(settings: Settings) -> Iterator[Row]:
        caches, counts = words(cache), words(workers)
        for mode in caches:
            require(mode in CACHE_MODES, f"--cache={mode} is not known; choose from {', '.join(CACHE_MODES)}")
        for count in counts:
            require(count.isdecimal(), f"--workers={count}: give whole numbers such as 0,1,2")
        return measure(settings, caches, [int(count) for count in counts])

    run_benchmark(options, checked, PRESETS, BATCH)


if __name__ == "__main__":
    main()
