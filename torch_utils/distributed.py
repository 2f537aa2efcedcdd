"""The processes of a run: rank, world size, and the few collectives that training needs. One process needs no set-up."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


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


def from_rank0(value: float, device: torch.device) -> float:
    """The first process's value, in every process."""
    if world_size() == 1:
        return value
    x = torch.tensor([value], dtype=torch.float64, device=device)
    dist.broadcast(x, src=0)
    return x.item()


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
