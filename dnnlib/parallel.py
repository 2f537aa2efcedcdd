"""Maps a function over many items with several processes, in order and in bounded memory."""

import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNKS_AHEAD = 4  # of each process: enough to keep it busy, few enough for the memory


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, chunk_size: int = 64
) -> Iterator[Result]:
    """Yield function(item) for each item, in the order of the items whatever the number of processes.

    Items are taken as results are used, so an endless or huge source is fine. An exception of the function arrives at
    its item's turn.

    Args:
        function: Importable by its name, like the items able to be pickled.
        workers: Processes; 1 = none, work in this one.

    Raises:
        ValueError: A process was killed from outside.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    remaining = iter(items)
    chunks = iter(lambda: list(itertools.islice(remaining, chunk_size)), [])
    pool = ProcessPoolExecutor(workers, initializer=_start_worker)
    try:
        pending: deque[Future[list[Result]]] = deque()
        for chunk in itertools.islice(chunks, workers * _CHUNKS_AHEAD):
            pending.append(pool.submit(_map_chunk, function, chunk))
        while pending:
            results = pending.popleft().result()
            for chunk in itertools.islice(chunks, 1):
                pending.append(pool.submit(_map_chunk, function, chunk))
            yield from results
    except BrokenExecutor as error:
        reason = "a worker process was killed, perhaps because memory ran out"
        raise ValueError(f"{reason}; use fewer processes (--workers)") from error
    finally:
        pool.shutdown(cancel_futures=True)


def available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # whatever the parent does on it
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a closed terminal reaches all processes, too
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the end of the parent, which may be killed without a chance to end this process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _map_chunk(function: Callable[[Item], Result], chunk: list[Item]) -> list[Result]:
    return [function(item) for item in chunk]
