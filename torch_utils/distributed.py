"""The processes of a run: starting them, their ranks, and the collectives that training needs. One process needs no set-up."""

import contextlib
import datetime
import itertools
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from dnnlib.console import protect_console
from dnnlib.parallel import available_cpus
from torch_utils.finite import is_all_finite

SPAWNED = "STYLEFORMER_SPAWNED"  # environment variable of the processes that `spawn` starts
TIMEOUT = datetime.timedelta(minutes=30)  # of a collective: rank 0 may be computing a metric meanwhile
_MAX_TEXT = 10_000  # characters; two texts must fit into a pipe of 64 KiB, which nobody reads meanwhile
_PARENT = os.getppid()  # before it can have ended
_LOST = re.compile("connection (closed|reset|refused)|broken pipe|timed out|remote peer|socket", re.IGNORECASE)


class PeerError(ValueError):
    """Another process of the run failed."""


@contextlib.contextmanager
def explain_lost_peers() -> Iterator[None]:
    """Raise PeerError instead of the error of a collective that lost the connection to another process."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if world_size() == 1 or not _LOST.search(text):
            raise
        reason = text.strip().split("\n")[0]
        raise PeerError(
            f"process {rank()} lost the connection to another process, which failed (see its own message) or was killed, "
            f"or whose machine is gone ({reason}). Start all processes again with --resume=latest"
        ) from error


def torchrun_world_size() -> int | None:
    """Return the number of processes torchrun started, on all machines; None if it did not start this one."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else None


def is_started() -> bool:
    """Return whether torchrun or `spawn` started this process."""
    return torchrun_world_size() is not None or SPAWNED in os.environ


def is_orphan() -> bool:
    """Return whether the process that started this one of several has ended."""
    return is_started() and os.getppid() != _PARENT


def local_world_size() -> int:
    return int(os.environ["LOCAL_WORLD_SIZE"]) if is_started() else 1


def check_gpus(num_processes: int) -> None:
    """Raise ValueError if this machine has GPUs, but fewer than processes."""
    count = torch.cuda.device_count()
    if 0 < count < num_processes:
        raise ValueError(f"--gpus={num_processes}, but PyTorch sees {count} GPUs here; write --gpus={count}")


def warn_of_shared_cpu(num_processes: int) -> None:
    """Print a warning, on the first process, where several have no GPU."""
    if torch.cuda.device_count() == 0 and num_processes > 1 and is_main():
        reason = "is built without CUDA" if torch.version.cuda is None else "sees no GPU"
        print(
            f"Warning: PyTorch {reason} (python -m torch_utils.doctor tells more): {num_processes} processes share the CPU.",
            file=sys.stderr,
        )


def init(device: torch.device) -> None:
    """Join the other processes that torchrun or `spawn` started, if any."""
    if not is_started():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # NCCL for tensors on GPUs; gloo for decisions of the host, which then do not wait for the GPUs.
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=TIMEOUT, device_id=device)
        if world_size() > 1:
            require_exchange(device)
    else:
        torch.set_num_threads(max(torch.get_num_threads() // local_world_size(), 1))
        dist.init_process_group("gloo", timeout=TIMEOUT)


def require_exchange(device: torch.device, limit_sec: float = 60.0) -> None:
    """Raise PeerError unless a first sum over all processes ends in time: NCCL, once it hangs, cannot be interrupted."""
    work = dist.all_reduce(torch.zeros(1, device=device), async_op=True)
    end_sec = time.monotonic() + limit_sec
    while not work.is_completed():
        if time.monotonic() > end_sec:
            raise PeerError(
                f"the GPUs exchanged nothing within {limit_sec:g} s. Start again with NCCL_P2P_DISABLE=1, for GPUs that cannot "
                f"reach each other (PCIe ACS, IOMMU), or with a larger /dev/shm (docker run --shm-size=1g); NCCL_DEBUG=INFO "
                f"tells more"
            )
        time.sleep(0.01)
    work.wait()


def shutdown() -> None:
    """Leave the other processes, once all of them call this."""
    if dist.is_initialized():
        all_reduce_sum(torch.zeros(1))  # rank 0 serves the store that the others use: it must not end first
        dist.destroy_process_group()


def local_device() -> torch.device:
    """Return the GPU of this process, or the CPU if PyTorch sees no GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]) if is_started() else 0)


def spawn(function: Callable[[Any], None], num_processes: int, argument: Any, with_traceback: bool = False) -> None:
    """Call `function(argument)` in new processes, which call `init` to join; the first error ends all of them.

    Raises:
        ValueError: A process raised ValueError or OSError: its message. With `with_traceback` a RuntimeError.
        ChildProcessError: A process was killed.
        RuntimeError: A process raised another error: its traceback.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Inherited by the processes, which import what reads it together with `function`.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(_compile_threads(num_processes)))
    failures = torch.multiprocessing.get_context("spawn").SimpleQueue()
    arguments = (num_processes, port, function, argument, failures)
    context = torch.multiprocessing.spawn(_spawned, arguments, nprocs=num_processes, join=False)
    assert context is not None
    try:
        with _forward_signals(context.pids()):
            while not context.join():
                pass
    except torch.multiprocessing.ProcessExitedException as error:
        if failures.empty():  # killed from outside
            reason = error.signal_name or f"exit code {error.exit_code}"
            text = f"process {error.error_index} was killed ({reason}); start the command again"
            raise ChildProcessError(text) from None
        message, details = failures.get()
        if message is None or with_traceback:
            raise RuntimeError(details) from None
        raise ValueError(message) from None


@contextlib.contextmanager
def _forward_signals(pids: list[int]) -> Iterator[None]:
    """Forward Ctrl-C, SIGTERM and, unless nohup ignores it, SIGHUP to processes in process groups of their own.

    The third Ctrl-C kills them: a collective that hangs cannot be interrupted.
    """
    interrupts = itertools.count(1)

    def forward(number: int, frame: FrameType | None) -> None:
        is_third = number == signal.SIGINT and next(interrupts) >= 3
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if is_third else number)

    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)
    previous = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _compile_threads(num_processes: int) -> int:
    """Return this machine's share of CPUs for each process, at most 32, which PyTorch would take in each of them."""
    return min(max(available_cpus() // num_processes, 1), 32)


def _spawned(
    rank: int, num_processes: int, port: int, function: Callable[[Any], None], argument: Any, failures: Any
) -> None:
    os.setpgid(0, 0)  # so that Ctrl-C arrives once, from the parent
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # a terminal set to tostop would stop a group in the background
    _set_environment(rank, num_processes, port)
    protect_console()
    tqdm.set_lock(threading.RLock())  # its own semaphore would be reported as leaked by os._exit
    exit_code = 0
    try:
        function(argument)
    except KeyboardInterrupt:
        exit_code = 128 + signal.SIGINT
    except Exception as error:
        is_ours = isinstance(error, (ValueError, OSError))  # messages of our own checks need no traceback
        name = "" if rank == 0 or isinstance(error, PeerError) else f"process {rank}: "
        details = f"process {rank} failed:\n{traceback.format_exc()[-_MAX_TEXT:]}"
        failures.put((f"{name}{error}"[-_MAX_TEXT:] if is_ours else None, details))
        exit_code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(exit_code)  # threads of the collectives that are still ending could abort a normal exit, or delay it


def _set_environment(rank: int, num_processes: int, port: int) -> None:
    """Set what torchrun would, and what suits several processes of one machine unless the user chose otherwise."""
    os.environ |= {SPAWNED: "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
    os.environ |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(num_processes))
    if os.path.exists("/sys/class/net/lo"):  # whose address stays, unlike that of a Wi-Fi
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, "lo")


def broadcast_object(value: Any) -> Any:
    """Return rank 0's value, a plain Python object, on every rank."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


@contextlib.contextmanager
def raise_on_all_ranks() -> Iterator[None]:
    """Raise an error of one rank on all of them, on the others as PeerError, so that none waits for a failed one.

    The body must not contain collectives.
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
    try:
        dist.all_gather_object(messages, None if failure is None else str(failure) or type(failure).__name__)
    except RuntimeError:  # a process is gone
        if failure is None:
            raise
    if failure is not None:
        raise failure
    for number, message in enumerate(messages):
        if message is not None:
            raise PeerError(f"process {number}: {message}")


def gather_rows(x: Tensor) -> Tensor:
    """Return the rows, [n, columns], of all ranks in order on rank 0, and a rank's own rows on the others; n may differ."""
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


def assert_equal_across_ranks(what: str, values: list[Any], usual_cause: str = "") -> None:
    """Raise PeerError on every rank unless all of them have the same values, plain Python objects.

    Args:
        usual_cause: Named first in the message.
    """
    if world_size() == 1:
        return
    every: list[list[Any]] = [[]] * world_size()
    dist.all_gather_object(every, values)
    different = [str(number) for number, theirs in enumerate(every) if theirs != every[0]]
    if different:
        usual = f"{usual_cause}, or " if usual_cause else ""
        raise PeerError(
            f"{what} of process {', '.join(different)} differ from those of process 0: {usual}a device or the network "
            f"between them is faulty, or the processes run different versions or see different files"
        )


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Return whether this process is rank 0, also before `init`."""
    return not is_started() or int(os.environ["RANK"]) == 0


def is_first_on_machine() -> bool:
    """Return whether this process is the first of its machine, also before `init`."""
    return not is_started() or int(os.environ["LOCAL_RANK"]) == 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def print0(*values: Any) -> None:
    if rank() == 0:
        print(*values, flush=True)


def all_reduce_sum(x: Tensor) -> Tensor:
    """Return the sum of x over all ranks, in place."""
    if world_size() > 1:
        dist.all_reduce(x)
    return x


def all_reduce_max(x: Tensor) -> Tensor:
    """Return the maximum of x over all ranks, in place."""
    if world_size() > 1:
        dist.all_reduce(x, dist.ReduceOp.MAX)
    return x


def all_ranks_have(value: bool) -> bool:
    """Return whether `value` is true on every rank."""
    return all_reduce_max(torch.tensor(int(not value))).item() == 0


def all_reduce_mean(x: Tensor) -> Tensor:
    """Return the mean of x over all ranks, in place."""
    return all_reduce_sum(x).div_(world_size()) if world_size() > 1 else x


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Overwrite each tensor with that of rank 0."""
    if world_size() > 1:
        for x in tensors:
            dist.broadcast(x, src=0)


def average_gradients(
    parameters: list[torch.nn.Parameter], loss: Tensor, replace: bool = True
) -> tuple[Tensor, Tensor]:
    """Replace every gradient by its mean over all ranks. A parameter without a gradient keeps none.

    The gradients become views of one flat tensor: few kernels and one all-reduce.

    Args:
        parameters: Of one device and dtype.
        loss: [], the loss of these gradients.
        replace: Replace NaN in the gradients by 0 and infinities by +-1e5.

    Returns:
        The mean loss, [], and whether it and all gradients were finite on all ranks, a bool tensor, [].
    """
    owners = [p for p in parameters if p.grad is not None]
    owners.sort(key=lambda p: p.numel() % 4 != 0)  # odd sizes last, so that the others start at multiples of 16 bytes
    grads = [p.grad.reshape(-1) for p in owners if p.grad is not None]
    flat = all_reduce_mean(torch.cat([*grads, loss.detach().to(parameters[0].dtype).view(1)]))
    is_finite = is_all_finite(flat)
    if replace:
        flat[:-1].nan_to_num_(nan=0.0, posinf=1e5, neginf=-1e5)
    for owner, part in zip(owners, flat[:-1].split([grad.numel() for grad in grads]), strict=True):
        owner.grad = part.view_as(owner)
    return flat[-1], is_finite
