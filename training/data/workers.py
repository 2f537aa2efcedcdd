"""Processes that read ahead of training: whatever befalls them is a DataError in one line."""

import contextlib
import signal
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset


class DataError(ValueError):
    """The data set cannot be read any more. What was trained before is sound and worth saving."""


def read_ahead(
    dataset: Dataset[Any], keys: Iterable[Any], num_workers: int, pin_memory: bool
) -> Generator[Any, None, None]:
    """Return dataset[key] for each key, in this order, read by so many processes; 0 = by this one.

    The processes start at once. Ctrl-C, which a terminal sends to them as well, does not reach them.

    Raises:
        DataError: The data set raised one, a process was killed, or they cannot be started or reached.
    """
    loader = DataLoader(
        _Answers(dataset),
        batch_size=None,
        sampler=keys,
        num_workers=num_workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # otherwise starting the workers would draw from the global one
    )
    with _data_errors(num_workers):
        iterator = _started(loader)
    return _received(iterator, num_workers)


class _Answers(Dataset[Any]):
    """A data set whose DataErrors are values: raised in a worker, they would come with a traceback in their text."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def __getitem__(self, key: Any) -> Any:
        try:
            return self._dataset[key]
        except DataError as error:
            return error


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """Return the iterator of a loader whose processes are born with Ctrl-C blocked.

    PyTorch's own handler, which would raise in the midst of whatever runs when a process dies, is undone.
    """
    if not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    handler = signal.getsignal(signal.SIGCHLD)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        iterator = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if signal.getsignal(signal.SIGCHLD) is not handler:  # so this is the main thread
        signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
    return iterator


def _received(iterator: Any, num_workers: int) -> Generator[Any, None, None]:
    """Yield what an iterator of a DataLoader reads; at the end of it all, whatever the reason, end its workers."""
    try:
        while True:
            with _data_errors(num_workers):
                item = next(iterator, None)
            if item is None:
                return
            if isinstance(item, DataError):
                raise item
            yield item
    finally:
        if num_workers:
            iterator._shutdown_workers()  # left to the garbage collector, it could wait in vain


@contextlib.contextmanager
def _data_errors(num_workers: int) -> Iterator[None]:
    """Turn what a DataLoader raises about its workers into a DataError."""
    try:
        yield
    except (RuntimeError, OSError, EOFError, MemoryError) as error:
        if not num_workers or "pin memory" in str(error):  # a matter of this process or its GPU
            raise
        reason = str(error).strip().rpartition("\n")[2] or type(error).__name__
        raise DataError(
            f"the processes that read images failed: {reason}. If memory ran out, use fewer (--workers, 0 = none); if "
            f"shared memory did, make more of it (docker run --shm-size=8g)"
        ) from error
