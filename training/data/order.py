"""The order of the images, infinite and resumable anywhere, and its micro-batches."""

import itertools
from collections.abc import Iterator

import numpy as np


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
    """Yield the micro-batches of one rank: micro-batch k of each batch goes to rank k % world_size."""
    while True:
        batch = list(itertools.islice(indices, batch_size))
        for start in range(rank * micro_batch, batch_size, world_size * micro_batch):
            yield batch[start : start + micro_batch]
