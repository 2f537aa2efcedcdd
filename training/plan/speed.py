"""How fast a configuration trains and in how much memory: a few steps tried out, or an estimate where they would take long."""

import resource
import time

import torch

from dnnlib.text import format_bytes, format_duration
from training.config import RunConfig
from training.data.stream import ImageDataset
from training.plan.probe import CPU_SEC, Probe
from training.plan.summary import forward_flops, meta_networks
from training.precision import resolve_precision

PROBE_STEPS = 10
MATRIX_SIDE = 768  # of the product that measures the CPU
CPU_SHARE = 0.5  # of its rate that training reaches, about


def speed(config: RunConfig, dataset: ImageDataset, device: torch.device, world_size: int = 1) -> str:
    """Two lines of text: thousands of images per day, and the memory of a process, both measured in a few steps.

    Where steps would take long, the speed is an estimate and the memory is not known.
    """
    batch, micro_batch = config.schedule.batch, config.schedule.micro_batch(world_size)
    if device.type != "cuda":
        flops = config.loss.training_flops(*forward_flops(*meta_networks(config, dataset.spec), dataset.spec))
        sec = flops * batch / world_size / (cpu_flops() * CPU_SHARE)
        if sec > CPU_SEC / 2:
            return (
                f"Speed:          about {kimg_per_day(batch, sec)} kimg per day on the CPU, estimated from its rate of matrix "
                f"products; not tried, as a step would take {format_duration(sec)}\n"
                f"Memory:         not measured, as no step was tried"
            )
    probe = Probe(config, dataset, device, world_size)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # of --batch-gpu=auto, which tried larger steps
    sec, count = probe.iteration_sec(PROBE_STEPS)
    others = f", {world_size} processes, exchange between them left out" if world_size > 1 else ""
    precision = resolve_precision(config.performance.precision, device).name
    return (
        f"Speed:          {kimg_per_day(batch, sec)} kimg per day: {sec:.3f} s per step of {batch} images on {device}, mean of "
        f"{count} step{'s' if count > 1 else ''}{others}\n"
        f"Memory:         {format_bytes(peak_bytes(device))} per process at most in these steps, measured on {device} in "
        f"{precision} with {micro_batch} images per forward pass"
    )


def peak_bytes(device: torch.device) -> int:
    """The most memory that PyTorch held on a GPU since its statistics were reset; on the CPU that this process ever had."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux


def kimg_per_day(batch: int, sec: float) -> str:
    """Thousands of images in a day of steps of so many seconds, in three digits."""
    return f"{float(f'{batch / sec * 86.4:.3g}'):,g}"


def cpu_flops() -> float:
    """The rate at which the CPU multiplies matrices now, floating-point operations per second."""
    matrix, best_sec = torch.ones(MATRIX_SIDE, MATRIX_SIDE), float("inf")
    for _ in range(4):
        started_sec = time.perf_counter()
        matrix @ matrix
        best_sec = min(best_sec, time.perf_counter() - started_sec)
    return 2 * MATRIX_SIDE**3 / best_sec
