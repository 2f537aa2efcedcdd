"""Processes that read ahead of training: whatever befalls them is a DataError, at the next request and no later."""

import contextlib
import multiprocessing.connection
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

_END = object()
_DYING_SEC = 1.0  # after a broken connection, for the process at its other end to be gone


class DataError(ValueError):
    """The data set cannot be read any more. What was trained before is sound and worth saving."""


def read_ahead(
    dataset: Dataset[Any], keys: Iterable[Any], num_workers: int, pin_memory: bool
) -> Generator[Any, None, None]:
    """Return dataset[key] for each key, in this order, read by so many processes; 0 = by this one.

    The processes start at once. They ignore Ctrl-C, which a terminal sends to them as well.

    Raises:
        DataError: A process was killed, or the processes cannot be started or reached.
    """
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=keys,
        num_workers=num_workers,
        pin_memory=pin_memory,
        collate_fn=_unchanged,
        generator=torch.Generator(),  # otherwise starting the workers would draw from the global one
    )
    try:
        with _child_signals_kept(), _interrupts_deferred():
            iterator = iter(loader)
    except OSError as error:
        raise DataError(
            f"cannot start {num_workers} processes that read pictures: {error.strerror}; use fewer (--workers)"
        ) from error
    return _received(iterator)


def _received(iterator: Any) -> Generator[Any, None, None]:
    """Yield what an iterator of a DataLoader reads; at the end of it all, whatever the reason, end its workers."""
    workers: list[BaseProcess] = getattr(iterator, "_workers", [])
    try:
        while True:
            _check_alive(workers)
            with _no_way_to(workers):
                item = next(iterator, _END)
            if item is _END:
                return
            yield item
    finally:
        if workers:
            iterator._shutdown_workers()  # left to the garbage collector, it could wait in vain


@contextlib.contextmanager
def _no_way_to(workers: list[BaseProcess]) -> Iterator[None]:
    """Raise DataError if the connection to the workers breaks."""
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        if not workers:
            raise
        multiprocessing.connection.wait([worker.sentinel for worker in workers], _DYING_SEC)
        _check_alive(workers)
        if "pin memory" in str(error):  # a matter of the GPU
            raise
        raise DataError(f"the processes that read pictures cannot be reached: {_first_line(error)}") from error


def _check_alive(workers: list[BaseProcess]) -> None:
    for worker in workers:
        if not worker.is_alive():
            raise DataError(f"a process that reads pictures {_end(worker.exitcode or 0)}")


def _end(exitcode: int) -> str:
    """Return how a process has ended, and what may help."""
    if exitcode >= 0:
        return f"ended with exit code {exitcode}; --workers=0 reads them without such processes"
    name = signal.Signals(-exitcode).name
    if name == "SIGBUS":
        return "ended for want of shared memory; make more of it (docker run --shm-size=8g), or use fewer (--workers)"
    if name == "SIGKILL":
        return "was killed (SIGKILL), perhaps because memory ran out; use fewer of them (--workers)"
    return f"was ended by {name}; --workers=0 reads them without such processes"


@contextlib.contextmanager
def _child_signals_kept() -> Iterator[None]:
    """Keep PyTorch from reporting the end of a worker as an error in the midst of whatever runs then."""
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Let Ctrl-C wait, here until the block ends, and for ever in processes started meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _unchanged(item: Any) -> Any:
    return item


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
