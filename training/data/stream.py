"""The endless stream of micro-batches that training takes from a data set."""

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info

from training.data.dataset import BrokenImage, ImageDataset
from training.data.decoded import CacheLocation, send
from training.data.files import MAX_BROKEN, too_many_broken_error
from training.data.order import micro_batches, order
from training.data.workers import DataError as DataError  # part of what `stream` offers
from training.data.workers import read_ahead


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
    max_broken: int = MAX_BROKEN,
    on_broken: Callable[[str], None] = print,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return the endless micro-batches of one rank: uint8 [micro_batch, channels, height, width] and float labels.

    A step takes the next `batch_size` images of `order` and cuts them into micro-batches; micro-batch k goes to rank
    k % world_size. So it holds the same images however many ranks there are, and wherever the run was resumed. The
    image that stands in for a broken one follows from the data set alone, see `ImageDataset.readable`.

    Args:
        dataset: Where the images are; its `broken` is filled.
        seed: Of the order.
        start_nimg: Images that the run has seen so far, over all ranks.
        batch_size: Images per step, over all ranks.
        micro_batch: Images a rank handles at once.
        rank: This process's place among the `world_size` ones.
        world_size: Number of ranks.
        num_workers: Processes that read ahead; 0 = read in this one, as is done with images kept on the device.
        device: Where the tensors go.
        max_broken: Different images that may be broken.
        on_broken: Gets a line for people, here, when an image is found broken for the first time.

    Raises:
        DataError: Too many images are broken, the zip or folder is gone or another one, or a worker was killed. Comes
            from the iterator, between two micro-batches.
    """
    if micro_batch < 1 or batch_size < 1 or batch_size % (micro_batch * world_size):
        raise ValueError(
            f"a batch of {batch_size} cannot be cut into micro-batches of {micro_batch} for {world_size} ranks; "
            f"--batch must be a multiple of --batch-gpu times --gpus"
        )
    device = torch.device(device)
    indices = micro_batches(order(seed, start_nimg, len(dataset)), batch_size, micro_batch, rank, world_size)
    is_at_hand = dataset.cache is not None and dataset.cache.place is CacheLocation.DEVICE
    pin_memory = device.type == "cuda" and not is_at_hand
    reads = read_ahead(_MicroBatchReader(dataset, max_broken), indices, 0 if is_at_hand else num_workers, pin_memory)
    return _checked(reads, dataset, max_broken, on_broken, device)


class _Read(NamedTuple):
    """A micro-batch, in a form that comes through from another process."""

    tensors: list[Tensor]  # images and labels
    broken: list[BrokenImage]


class _MicroBatchReader(Dataset[_Read]):
    """The micro-batches of a data set, by the indices of their images."""

    def __init__(self, dataset: ImageDataset, max_broken: int) -> None:
        self._dataset, self._max_broken = dataset, max_broken

    def __getitem__(self, indices: list[int]) -> _Read:
        kept = self._dataset.kept_batch(indices)
        if kept is not None:
            return _Read([_handed_over(tensor) for tensor in kept], [])
        images, labels, broken = zip(
            *(self._dataset.load_or_substitute(index, self._max_broken) for index in indices), strict=True
        )
        return _Read([default_collate(images), default_collate(labels)], list(itertools.chain(*broken)))


def _handed_over(tensor: Tensor) -> Tensor:
    """Return a tensor that comes through from another process; moved later, a lack of memory would go unnoticed."""
    return tensor if get_worker_info() is None else tensor.share_memory_()


def _checked(
    reads: Generator[_Read, None, None],
    dataset: ImageDataset,
    max_broken: int,
    on_broken: Callable[[str], None],
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the micro-batches; tell of broken images, and raise DataError when they are too many or there is no more."""
    with contextlib.closing(reads):
        for tensors, broken in reads:
            for name, problem, stand_in in broken:
                if name not in dataset.broken:
                    dataset.broken[name] = problem
                    on_broken(f"Warning: {problem}; {stand_in} is used in its place")
            if len(dataset.broken) > max_broken:
                raise too_many_broken_error(dataset.path, dataset.broken, max_broken)
            images, labels = (send(tensor, device) for tensor in tensors)
            yield images, labels
