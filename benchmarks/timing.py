"""Measures calls: time in interleaved rounds, memory, and how fast the device multiplies matrices."""

import functools
import gc
import math
import os
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.modes import Mode

Call = Callable[[], object]
MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}
MATRIX_CALLS = 20
WARM_UP_CALLS = {"cpu": 1, "cuda": 4}  # compilation, the choice of algorithms and the recording of CUDA graphs
MAX_REPEATS = 100

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler complains where there is no GPU


def now(device: torch.device) -> float:
    """Seconds on a clock, when the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds(call: Call, device: torch.device, repeats: int = 1) -> float:
    """Mean time of a call."""
    start = now(device)
    for _ in range(repeats):
        call()
    return (now(device) - start) / repeats


def warm_up(calls: dict[str, Call], device: torch.device) -> dict[str, Call]:
    """Call each a few times; returns those that the device's memory sufficed for."""
    fitting = {}
    for name, call in calls.items():
        try:
            for _ in range(WARM_UP_CALLS[device.type]):
                call()
            fitting[name] = call
        except torch.OutOfMemoryError:
            gc.collect()
            torch.cuda.empty_cache()
    return fitting


def interleaved(calls: dict[str, Call], device: torch.device, rounds: int, least_sec: float) -> dict[str, list[float]]:
    """Return the time of each call in each round, in which all have their turn, so that they share what disturbs the machine.

    Args:
        calls: Warmed up, by name.
        device: Where they compute.
        rounds: Turns of each.
        least_sec: Short calls are repeated within a turn until they take about so long.
    """
    repeats = {name: repeats_for(call, device, least_sec) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(rounds):
        for name in list(calls)[:: -1 if index % 2 else 1]:  # none is always first
            times[name].append(seconds(calls[name], device, repeats[name]))
    return times


def repeats_for(call: Call, device: torch.device, least_sec: float) -> int:
    """Return how many calls take that long."""
    if least_sec == 0:
        return 1
    return max(1, min(MAX_REPEATS, math.ceil(least_sec / seconds(call, device))))


def peak_bytes(call: Call, device: torch.device) -> int:
    """Return the most memory that tensors take during a call beyond what they took before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        call()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    taken = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        taken += event.nbytes()
        peak = max(peak, taken)
    return peak


def saved_bytes(network: nn.Module, run: Callable[[], Tensor]) -> int:
    """Bytes that a call stores for its backward pass, each storage counted once, the network's own left out."""
    own = {t.untyped_storage()._cdata for t in [*network.parameters(), *network.buffers()]}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@functools.cache
def matrix_rate(precision: str, device: torch.device) -> float:
    """Floating-point operations per second in the product of two large square matrices; the best of several."""
    mode, side = Mode(precision), MATRIX_SIDE[device.type]
    a = torch.randn(side, side, device=device).to(mode.dtype)
    b = torch.randn(side, side, device=device).to(mode.dtype)
    with mode.active(), torch.no_grad():
        fastest = min(seconds(lambda: a @ b, device) for _ in range(MATRIX_CALLS))
    return 2 * side**3 / fastest
