"""How fast a configuration trains: a few steps tried out, or an estimate where they would take long."""

import time

import torch

from dnnlib.text import format_bytes, format_duration
from training.config import DatasetSpec, LossConfig, RunConfig
from training.data.stream import ImageDataset
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.plan.probe import CPU_SEC, Probe
from training.plan.summary import count_flops

PROBE_STEPS = 10
MATRIX_SIDE = 768  # of the product that measures the CPU
CPU_SHARE = 0.5  # of its rate that training reaches, about


def forward_flops(config: RunConfig, spec: DatasetSpec) -> tuple[float, float]:
    """Floating-point operations of an image in the forward pass of the generator and of the discriminator."""
    with torch.device("meta"):
        G, D = Generator(config.generator, spec), Discriminator(config.discriminator, spec).to("meta")
        z, c = torch.empty(1, G.z_dim), torch.empty(1, spec.label_dim)
        image = torch.empty(1, spec.channels, spec.height, spec.width)
        return count_flops(lambda: G(z, c)), count_flops(lambda: D(image, c))


def training_flops(G_flops: float, D_flops: float, loss: LossConfig) -> float:
    """Floating-point operations of training on an image, from those of the networks' forward passes.

    A backward pass costs two forward passes, or one where no weights want a gradient.
    """
    G_main, D_main = 3 * G_flops + 2 * D_flops, G_flops + 6 * D_flops
    r1 = 6 * D_flops / loss.r1_interval if loss.r1_gamma > 0 else 0.0
    path_length = 6 * G_flops / (loss.pl_interval * loss.pl_batch_shrink) if loss.pl_weight > 0 else 0.0
    return G_main + D_main + r1 + path_length


def speed(config: RunConfig, dataset: ImageDataset, device: torch.device, world_size: int = 1) -> str:
    """A line of text: thousands of pictures a day by a few steps, or by estimate where these would take long."""
    batch = config.schedule.batch
    if device.type != "cuda":
        flops = training_flops(*forward_flops(config, dataset.spec), config.loss) * batch / world_size
        sec = flops / (cpu_flops() * CPU_SHARE)
        if sec > CPU_SEC / 2:
            return (
                f"Speed:          about {kimg_a_day(batch, sec)} kimg a day on the CPU, by estimate from the rate of its matrix "
                f"products; not tried, as a step would take {format_duration(sec)}"
            )
    sec, count = Probe(config, dataset, device, world_size).iteration_sec(PROBE_STEPS)
    others = f", {world_size} processes, exchange between them left out" if world_size > 1 else ""
    peak = f"; peak memory {format_bytes(torch.cuda.max_memory_allocated(device))}" if device.type == "cuda" else ""
    return (
        f"Speed:          {kimg_a_day(batch, sec)} kimg a day: {sec:.3f} s a step of {batch} pictures on {device}, mean of "
        f"{count} step{'s' if count > 1 else ''}{others}{peak}"
    )


def kimg_a_day(batch: int, sec: float) -> str:
    """Thousands of pictures in a day of steps of so many seconds, in three digits."""
    return f"{float(f'{batch / sec * 86.4:.3g}'):,g}"


def cpu_flops() -> float:
    """The rate at which the CPU multiplies matrices now, floating-point operations a second."""
    matrix, best_sec = torch.ones(MATRIX_SIDE, MATRIX_SIDE), float("inf")
    for _ in range(4):
        started_sec = time.perf_counter()
        matrix @ matrix
        best_sec = min(best_sec, time.perf_counter() - started_sec)
    return 2 * MATRIX_SIDE**3 / best_sec
