"""The endless stream of micro-batches that training takes from a data set."""

import contextlib
import functools
import itertools
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from torch_utils.transfer import to_device_async
from training.data.dataset import MAX_BROKEN, BrokenImage, ImageDataset, too_many_broken_error
from training.data.dataset import DataError as DataError  # part of what `stream` offers


def stream(
    dataset: ImageDataset,
    *,
    seed: int,
    start_nimg: int,
    batch_size: int,
    micro_batch: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    on_broken: Callable[[str], None] = print,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the micro-batches of one rank: uint8 [micro_batch, channels, height, width] and float labels, without end.

    Each step takes the next `batch_size` images of `order`; its micro-batch k goes to rank k % world_size. So a step has the
    same images on any number of ranks and after a resume.

    Args:
        dataset: Source of the images; broken ones are replaced (`load_or_substitute`) and added to its `broken`.
        start_nimg: Images seen so far by all ranks.
        batch_size: Images per step on all ranks, a multiple of micro_batch * world_size.
        num_workers: Processes that read ahead; 0 = read in this one, as is done with images cached on the GPU.
        on_broken: Called with a line for people when an image is found broken for the first time.

    Raises:
        DataError: Too many images are broken, the zip or folder is gone or has been replaced, or a worker was killed.
    """
    device = torch.device(device)
    indices = micro_batches(order(seed, start_nimg, len(dataset)), batch_size, micro_batch, rank, world_size)
    if dataset.cache is not None and (num_workers == 0 or dataset.cache.pixels.is_cuda):
        for images, labels in map(dataset.cached_batch, indices):
            yield to_device_async(images, device), to_device_async(labels, device)
    read = functools.partial(_read, dataset)
    with contextlib.closing(read_ahead(read, indices, num_workers, pin_memory=device.type == "cuda")) as reads:
        for images, labels, broken in reads:
            for name, problem, stand_in in broken:
                if name not in dataset.broken:
                    dataset.broken[name] = problem
                    on_broken(f"Warning: {problem}; {stand_in} is used in its place")
            if len(dataset.broken) > MAX_BROKEN:
                raise too_many_broken_error(dataset.path, dataset.broken)
            yield to_device_async(images, device), to_device_async(labels, device)


def order(seed: int, start_nimg: int, length: int) -> Iterator[int]:
    """Yield image indices, 0..length-1, from global position `start_nimg` on, without end.

    Each epoch is a permutation that depends on (seed, epoch) alone.
    """
    epoch, position = divmod(start_nimg, length)
    while True:
        permutation = np.random.default_rng(np.random.SeedSequence((seed, epoch))).permutation(length)
        yield from permutation[position:].tolist()
        epoch, position = epoch + 1, 0


def micro_batches(
    indices: Iterator[int], batch_size: int, micro_batch: int, rank: int, world_size: int
) -> Iterator[list[int]]:
    """Yield the micro-batches of one rank, `parts_of_rank` of each batch."""
    while True:
        batch = list(itertools.islice(indices, batch_size))
        for part in parts_of_rank(batch_size, micro_batch, rank, world_size):
            yield batch[part]


def parts_of_rank(batch_size: int, micro_batch: int, rank: int, world_size: int) -> list[slice]:
    """Where a rank's micro-batches lie in a batch: micro-batch k belongs to rank k % world_size."""
    starts = range(rank * micro_batch, batch_size, micro_batch * world_size)
    return [slice(start, start + micro_batch) for start in starts]


def _read(dataset: ImageDataset, indices: list[int]) -> tuple[Tensor, Tensor, list[BrokenImage]]:
    """Return a micro-batch: its images, their labels, and which images are broken."""
    images, labels, broken = zip(*map(dataset.load_or_substitute, indices), strict=True)
    return default_collate(images), default_collate(labels), list(itertools.chain(*broken))


class _Reads(Dataset[Any]):
    """What a function returns, as DataLoader takes it."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self._read = read

    def __getitem__(self, key: Any) -> Any:
        return self._read(key)


def read_ahead(
    read: Callable[[Any], Any], keys: Iterable[Any], num_workers: int, pin_memory: bool
) -> Generator[Any, None, None]:
    """Yield read(key) for each key, in order, called by worker processes; 0 = by this one.

    Raises DataError where `read` did, or a worker was killed or could not be started or reached.
    """
    loader = DataLoader(
        _Reads(read),
        batch_size=None,
        sampler=keys,
        num_workers=num_workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # otherwise starting the workers would draw from the global one
    )
    iterator: Any = None
    try:
        iterator = _start(loader)
        yield from iterator
    except DataError as error:  # of a worker, it has a traceback in its text
        raise DataError(str(error).rpartition("DataError: ")[2].strip()) from error
    except (RuntimeError, OSError, EOFError, MemoryError) as error:
        if not num_workers or "pin memory" in str(error):  # a matter of this process or its GPU
            raise
        reason = str(error).strip().rpartition("\n")[2] or type(error).__name__
        raise DataError(
            f"the processes that read images failed: {reason}. If memory ran out, use fewer (--workers, 0 = none); if "
            f"shared memory did, make more of it (docker run --shm-size=8g)"
        ) from error
    finally:
        if num_workers and iterator is not None:
            iterator._shutdown_workers()  # the garbage collector may wait for them in vain


def _start(loader: DataLoader[Any]) -> Iterator[Any]:
    """Return the iterator of a loader. Its workers have Ctrl-C blocked from the start: a terminal sends it to them too.

    PyTorch's handler of SIGCHLD is undone: it would raise in the middle of a training step when a worker dies.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if signal.getsignal(signal.SIGCHLD) is not handler:  # so this is the main thread
            signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
