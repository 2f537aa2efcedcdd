"""The collectives, tried by two processes; and how an error of one of them reaches whoever started them."""

import os
from pathlib import Path

import pytest
import torch

from torch_utils import distributed
from torch_utils.distributed import (
    PeerError,
    assert_equal_across_ranks,
    broadcast_object_on_node,
    gather_rows,
    is_main,
    is_orphan,
    share,
    spawn,
    together,
)


def try_collectives(folder: Path) -> None:
    distributed.init(torch.device("cpu"))
    rank = distributed.rank()
    rows = torch.arange(3 - rank).unsqueeze(1) + 10.0 * rank  # 3 rows and 2
    gathered = gather_rows(rows)
    expected = [[0], [1], [2], [10], [11]] if rank == 0 else [[10], [11]]
    assert gathered.tolist() == expected and gather_rows(rows[:0]).shape == (0, 1)
    with together():
        pass
    assert_equal_across_ranks("the weights", [1, 2])
    assert (share(rank), broadcast_object_on_node(rank)) == (0, 0)
    os.environ["LOCAL_RANK"] = "0"  # as if each had a machine of its own
    assert (share(rank), broadcast_object_on_node(rank)) == (0, rank)
    with pytest.raises(PeerError, match="the weights of process 1 differ from those of the first"):
        assert_equal_across_ranks("the weights", [1, rank])
    assert is_main() == (rank == 0) and not is_orphan()
    try:
        with together():
            if rank == 1:
                raise OSError("the disk is gone")
    except PeerError as error:
        (folder / "seen").write_text(f"{rank}: {error}")
    except OSError as error:
        assert rank == 1 and str(error) == "the disk is gone"
    distributed.shutdown()


def fail_on_one(kind: type[Exception]) -> None:
    distributed.init(torch.device("cpu"))
    if distributed.rank() == 1:
        raise kind("no such thing; bring one")
    gather_rows(torch.zeros(1, 1))  # waits for the other


def test_two_processes(tmp_path: Path) -> None:
    spawn(try_collectives, 2, tmp_path)
    assert (tmp_path / "seen").read_text() == "0: process 1: the disk is gone"


def test_one_process_needs_no_others() -> None:
    rows = torch.ones(2, 1)
    assert gather_rows(rows) is rows
    with pytest.raises(KeyError), together():
        raise KeyError("x")


def test_the_failing_process_is_named_and_the_others_end() -> None:
    with pytest.raises(ValueError, match=r"^process 1: no such thing; bring one$"):
        spawn(fail_on_one, 2, ValueError)
    with pytest.raises(RuntimeError, match=r"^process 1 failed:\nTraceback(.|\n)*RuntimeError: no such thing"):
        spawn(fail_on_one, 2, RuntimeError)
