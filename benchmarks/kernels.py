"""Looks into a step: which kernels take the most time, and whether the program ever waits for the GPU."""

import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).parents[1]
STEPS = 3


def largest(call: Callable[[], object], device: torch.device, count: int = 10) -> list[tuple[str, float, float, int]]:
    """Return (name, milliseconds, share of time, launches) of the slowest kernels of a call, on the CPU of its operators."""
    activity = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity], acc_events=True) as profiler:
        for _ in range(STEPS):
            call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    found = []
    for event in profiler.key_averages():
        microsec = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        found.append((event.key, microsec / 1000 / STEPS, event.count // STEPS))
    total = sum(ms for _, ms, _ in found)
    found.sort(key=lambda item: -item[1])
    return [(name, ms, ms / total, launches) for name, ms, launches in found[:count]]


def where_it_waits(call: Callable[[], object]) -> str | None:
    """Return the line of this project at which a call first waits for the GPU; None = it never does."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        call()
    except RuntimeError as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if str(ROOT) in frame.filename]
        place = frames[-1]
        return f"{Path(place.filename).relative_to(ROOT)}:{place.lineno} ({place.line}): {str(error).splitlines()[0]}"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return None
