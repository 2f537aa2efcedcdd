import itertools
import os
from collections.abc import Iterator

import pytest

from dnnlib.parallel import ordered_map


def _square(number: int) -> int:
    return number * number


def _refuse_700(number: int) -> int:
    if number == 700:
        raise ValueError(f"{number} is refused")
    return number


def _pid(_: int) -> int:
    return os.getpid()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_order_is_kept(workers: int) -> None:
    assert list(ordered_map(_square, range(1000), workers)) == [number * number for number in range(1000)]


def test_other_processes_work() -> None:
    assert os.getpid() not in set(ordered_map(_pid, range(200), 2))


def test_endless_items_are_taken_as_needed() -> None:
    taken = 0

    def count() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken - 1

    results = ordered_map(_square, count(), 2)
    assert list(itertools.islice(results, 300)) == [number * number for number in range(300)]
    results.close()
    assert taken < 2000


def test_error_arrives_at_its_turn() -> None:
    results = ordered_map(_refuse_700, range(1000), 2)
    assert list(itertools.islice(results, 640)) == list(range(640))
    with pytest.raises(ValueError, match="700 is refused"):
        list(results)
