"""The processes of a run: rank, world size, and the few collectives that training needs. One process needs no set-up."""

import contextlib
import datetime
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from torch_utils.finite import is_all_finite

SPAWNED = "STYLEFORMER_SPAWNED"  # environment variable of the processes that `spawn` starts
TIMEOUT = datetime.timedelta(minutes=30)  # of a collective: the first process may be computing a distance meanwhile
SIGN_OF_LIFE_SEC = 5.0  # how long a process is silent at most in `take_time_together`


_PARENT = os.getppid()  # looked at early: it may be gone soon


class PeerError(ValueError):
    """Another process of the run failed; the message says which one and how, where that is known."""


LOST = (
    "connection closed",
    "connection reset",
    "connection refused",
    "broken pipe",
    "timed out",
    "remote peer",
    "socket",
)


@contextlib.contextmanager
def explain_lost_peers() -> Iterator[None]:
    """Turn the error of a collective that another process has left into a PeerError."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if world_size() == 1 or not any(word in text.lower() for word in LOST):
            raise
        reason = text.strip().split("\n")[0]
        raise PeerError(
            f"process {rank()} lost the connection to another process, which failed (its own message says why), was killed, "
            f"or whose machine is gone ({reason}). Start all of them again with --resume=latest"
        ) from error


def torchrun_world_size() -> int | None:
    """How many processes torchrun started, over all machines; None where it did not start this one."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else None


def is_started() -> bool:
    """Whether torchrun or `spawn` started this process."""
    return torchrun_world_size() is not None or SPAWNED in os.environ


def is_orphan() -> bool:
    """Whether torchrun, or what else started this process as one of several, is gone."""
    return is_started() and os.getppid() != _PARENT


def local_world_size() -> int:
    """How many of the processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def local_rank() -> int:
    """This process's number among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if dist.is_initialized() else 0


def check_gpus(num_processes: int) -> None:
    """Raise ValueError if there are GPUs, but fewer than this machine's processes."""
    if 0 < torch.cuda.device_count() < num_processes:
        raise ValueError(f"--gpus={num_processes}, but PyTorch sees {torch.cuda.device_count()} GPUs here")


def init(device: torch.device) -> None:
    """Join the other processes that torchrun or `spawn` started; a run of one has none."""
    if not is_started():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # NCCL for what is on the GPUs; what the host decides is agreed on without waiting for them.
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=TIMEOUT, device_id=device)
    else:
        torch.set_num_threads(max(torch.get_num_threads() // local_world_size(), 1))
        dist.init_process_group("gloo", timeout=TIMEOUT)


def shutdown() -> None:
    """Part from the other processes, all at once; nothing happens in a run of one."""
    if dist.is_initialized():
        all_reduce_sum(torch.zeros(1))  # the first process keeps the addresses of all: it must not go before the others
        dist.destroy_process_group()


def local_device() -> torch.device:
    """The GPU of this process, or the CPU where PyTorch sees no GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def spawn(function: Callable[[Any], None], num_processes: int, argument: Any, with_traceback: bool = False) -> None:
    """Call `function(argument)` in so many new processes that can `init`; the first error ends all of them.

    Raises ValueError with its message if it is a ValueError or OSError, and no traceback was asked for; otherwise
    RuntimeError with its traceback.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    failures = torch.multiprocessing.get_context("spawn").SimpleQueue()
    arguments = (num_processes, port, function, argument, failures)
    context = torch.multiprocessing.spawn(_spawned, arguments, nprocs=num_processes, join=False)
    assert context is not None
    try:
        with _signals_forwarded(context.pids()):
            while not context.join():
                pass
    except torch.multiprocessing.ProcessExitedException:
        if failures.empty():  # killed from outside
            raise
        message, details = failures.get()
        if message is None or with_traceback:
            raise RuntimeError(details) from None
        raise ValueError(message) from None


@contextlib.contextmanager
def _signals_forwarded(pids: list[int]) -> Iterator[None]:
    """Hand Ctrl-C and SIGTERM on to processes, which do not get them from the terminal themselves."""

    def forward(number: int, frame: FrameType | None) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _spawned(
    rank: int, num_processes: int, port: int, function: Callable[[Any], None], argument: Any, failures: Any
) -> None:
    os.setpgid(0, 0)  # out of the terminal's reach: the parent hands signals on, once
    os.environ |= {
        SPAWNED: "1",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        function(argument)
    except Exception as error:
        is_ours = isinstance(error, (ValueError, OSError))  # the messages of our own checks need no traceback
        name = "" if rank == 0 or isinstance(error, PeerError) else f"process {rank}: "
        failures.put((f"{name}{error}" if is_ours else None, f"process {rank} failed:\n{traceback.format_exc()}"))
        raise SystemExit(1) from error
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)  # all is done: threads of the collectives that are still ending must not abort the process


def broadcast_object(value: Any) -> Any:
    """The first process's plain Python value, in every process."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def broadcast_object_on_node(value: Any) -> Any:
    """The plain Python value of the first process of this machine, in all of its processes; all machines take part."""
    if world_size() == 1:
        return value
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values[rank() - local_rank()]


@contextlib.contextmanager
def raise_on_all_ranks() -> Iterator[None]:
    """Raise an error of one process in all of them, so that none waits for one that has failed; no collectives inside.

    The other processes get it as a PeerError, which is a ValueError.
    """
    if world_size() == 1:
        yield
        return
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    messages: list[str | None] = [None] * world_size()
    dist.all_gather_object(messages, None if failure is None else str(failure) or type(failure).__name__)
    if failure is not None:
        raise failure
    for number, message in enumerate(messages):
        if message is not None:
            raise PeerError(f"process {number}: {message}")


def take_time_together(function: Callable[[], object]) -> None:
    """Call a function that may take longer in one process than a collective may wait, then raise errors as `raise_on_all_ranks`.

    It runs in a thread, while the processes tell each other every few seconds that they are alive: one that is killed is
    missed at once. No collectives inside.
    """
    if world_size() == 1:
        function()
        return
    failures: list[Exception] = []

    def call() -> None:
        try:
            function()
        except Exception as error:
            failures.append(error)

    worker = threading.Thread(target=call, daemon=True)
    worker.start()
    still_busy = [True]
    while any(still_busy):
        worker.join(SIGN_OF_LIFE_SEC)
        still_busy = [True] * world_size()
        dist.all_gather_object(still_busy, worker.is_alive())
    with raise_on_all_ranks():
        if failures:
            raise failures[0]


def gather_rows(x: Tensor) -> Tensor:
    """The rows, [n, columns], of all processes in the order of their ranks, on the first process; n may differ.

    The others get their own rows back.
    """
    if world_size() == 1:
        return x
    counts = torch.zeros(world_size(), dtype=torch.int64)
    counts[rank()] = len(x)
    lengths = all_reduce_sum(counts).tolist()
    padded = torch.zeros(max(lengths), *x.shape[1:], dtype=x.dtype, device=x.device)
    padded[: len(x)] = x
    gathered = [torch.empty_like(padded) for _ in lengths] if rank() == 0 else None
    dist.gather(padded, gathered, dst=0)
    return x if gathered is None else torch.cat([part[:n] for part, n in zip(gathered, lengths, strict=True)])


def assert_equal_across_ranks(what: str, numbers: list[int]) -> None:
    """Raise PeerError on every process unless all of them have the same whole numbers."""
    if world_size() == 1:
        return
    every: list[list[int]] = [[]] * world_size()
    dist.all_gather_object(every, numbers)
    different = [str(number) for number, theirs in enumerate(every) if theirs != every[0]]
    if different:
        raise PeerError(
            f"{what} of process {', '.join(different)} differ from those of the first: a device or the network between "
            f"them computes wrongly, or the processes run different versions"
        )


def rank() -> int:
    """This process's number, 0 in a run of one."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this process speaks for all, also before it joined the others: the first of the run."""
    return not is_started() or int(os.environ["RANK"]) == 0


def is_first_on_machine() -> bool:
    """Whether this process is the first of its machine, also before it joined the others."""
    return not is_started() or int(os.environ["LOCAL_RANK"]) == 0


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


def all_reduce_max(x: Tensor) -> Tensor:
    """The maximum of x over the processes, in place."""
    if world_size() > 1:
        dist.all_reduce(x, dist.ReduceOp.MAX)
    return x


def all_ranks_have(value: bool) -> bool:
    """Whether it is true in every process."""
    return all_reduce_max(torch.tensor(int(not value))).item() == 0


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


def average_gradients(
    parameters: list[torch.nn.Parameter], loss: Tensor, replace: bool = True
) -> tuple[Tensor, Tensor]:
    """Replace every gradient by its mean over the processes.

    Unless `replace` is false, NaN in them becomes 0 and infinities +-1e5. A parameter without a gradient stays without.

    Args:
        parameters: Of one device and dtype.
        loss: That the gradients belong to, [].

    Returns:
        The mean loss, and whether it and all gradients were finite on all processes, a bool tensor; both without dimensions.
    """
    loss = loss.detach().to(parameters[0].dtype)
    if world_size() > 1 or loss.device.type != "cpu":
        return average_flat_gradients(parameters, loss, replace)
    grads = [p.grad for p in parameters if p.grad is not None]  # here the copies would cost more than they spare
    lengths = torch._foreach_norm([grad for grad in grads if grad.numel()])
    is_finite = is_all_finite(torch.stack([loss, *lengths]))
    if not is_finite:  # or squares have overflowed
        is_finite = is_all_finite(torch.stack([loss, *(x for grad in grads if grad.numel() for x in grad.aminmax())]))
    if replace and not is_finite:
        for grad in grads:
            grad.nan_to_num_(nan=0.0, posinf=1e5, neginf=-1e5)
    return loss, is_finite


def average_flat_gradients(
    parameters: list[torch.nn.Parameter], loss: Tensor, replace: bool = True
) -> tuple[Tensor, Tensor]:
    """`average_gradients` through one flat tensor, of which the gradients become views: few kernels and one all-reduce."""
    owners = [p for p in parameters if p.grad is not None]
    owners.sort(key=lambda p: p.numel() % 4 != 0)  # odd sizes last, so that the others begin at multiples of 16 bytes
    grads = [p.grad.reshape(-1) for p in owners if p.grad is not None]
    flat = all_reduce_mean(torch.cat([*grads, loss.view(1)]))
    is_finite = is_all_finite(flat)
    parts = flat[:-1].split([grad.numel() for grad in grads])
    if replace:
        flat[:-1].nan_to_num_(nan=0.0, posinf=1e5, neginf=-1e5)
    for owner, part in zip(owners, parts, strict=True):
        owner.grad = part.view_as(owner)
    return flat[-1], is_finite
