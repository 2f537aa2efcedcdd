"""The processes of a run: rank, world size, and the few collectives that training needs. One process needs no set-up."""

import datetime
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

SPAWNED = "STYLEFORMER_SPAWNED"  # environment variable of the processes that `spawn` starts
TIMEOUT = datetime.timedelta(hours=2)  # of a collective: the first process may be measuring meanwhile


def torchrun_world_size() -> int | None:
    """How many processes torchrun started, over all machines; None where it did not start this one."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else None


def local_world_size() -> int:
    """How many of the processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def check_gpus(num_processes: int) -> None:
    """Raise ValueError if there are GPUs, but fewer than this machine's processes."""
    if 0 < torch.cuda.device_count() < num_processes:
        raise ValueError(f"--gpus={num_processes}, but PyTorch sees {torch.cuda.device_count()} GPUs here")


def join(device: torch.device) -> None:
    """Join the other processes that torchrun or `spawn` started; a run of one has none."""
    if torchrun_world_size() is None and SPAWNED not in os.environ:
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", timeout=TIMEOUT, device_id=device)
    else:
        torch.set_num_threads(max(torch.get_num_threads() // local_world_size(), 1))
        dist.init_process_group("gloo", timeout=TIMEOUT)


def leave() -> None:
    """Part from the other processes; nothing happens in a run of one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def local_device() -> torch.device:
    """The GPU of this process, or the CPU where PyTorch sees no GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def spawn(function: Callable[[Any], None], num_processes: int, argument: Any) -> None:
    """Call `function(argument)` in so many new processes that can `join`; the first error ends all of them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(_spawned, (num_processes, port, function, argument), nprocs=num_processes)


def _spawned(rank: int, num_processes: int, port: int, function: Callable[[Any], None], argument: Any) -> None:
    os.environ |= {
        SPAWNED: "1",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    function(argument)


def share(value: Any) -> Any:
    """The first process's plain Python value, in every process."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def rank() -> int:
    """This process's number, 0 in a run of one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def print0(*values: Any) -> None:
    """print, in the first process only."""
    if rank() == 0:
        print(*values, flush=True)


def all_reduce_sum(x: Tensor) -> Tensor:
    """The sum of x over the processes, in place."""
    if world_size() > 1:
        dist.all_reduce(x)
    return x


def all_reduce_mean(x: Tensor) -> Tensor:
    """The mean of x over the processes, in place."""
    if world_size() > 1:
        dist.all_reduce(x)
        x /= world_size()
    return x


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Overwrite each tensor with the first process's."""
    if world_size() > 1:
        for x in tensors:
            dist.broadcast(x, src=0)


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes, in one flat all-reduce, and make it finite.

    NaN becomes 0 and infinities +-1e5. A parameter without a gradient stays without one.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return
    flat = all_reduce_mean(torch.cat([g.flatten() for g in grads]))
    flat.nan_to_num_(nan=0.0, posinf=1e5, neginf=-1e5)
    for grad, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        grad.copy_(part.view_as(grad))
