"""A few training steps without a run, to measure their time and memory."""

import contextlib
import itertools
import time

import torch

from torch_utils.rng import seed_step
from training.config import RunConfig
from training.data.stream import ImageDataset, stream
from training.latents import latent_source
from training.losses import build_phases
from training.phases import MicroBatch
from training.state import TrainState

CPU_SEC = 15.0  # after which no further step is started on the CPU
_WARM_UP_STEPS = 3  # on a GPU, where cuDNN tries out its algorithms
_FIRST_STEP = 64  # a multiple of usual intervals: all penalties are due in it, and schedules have left 0


class Probe:
    """New networks and optimizers of a configuration, and the first images of its data set, used in every step.

    Runs in a single process, before it joins any others.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: ImageDataset,
        device: torch.device,
        num_processes: int = 1,  # that share the batch in training
        passes: int | None = None,  # forward passes per phase; None = the share of a process
    ) -> None:
        schedule = config.schedule
        micro_batch = schedule.micro_batch(num_processes)
        passes = passes or schedule.batch // (micro_batch * num_processes)
        self.device, batch = device, passes * micro_batch
        self.state = TrainState(config, dataset.spec, device)
        self.restart()
        self.phases = build_phases(self.state)
        source = latent_source(self.state, dataset.labels(), batch, micro_batch)
        reals = stream(
            dataset, seed=schedule.seed, start_nimg=0, batch_size=batch, micro_batch=micro_batch, device=device,
            on_broken=lambda line: None,
        )  # fmt: skip
        with contextlib.closing(reals):  # type: ignore[type-var]
            self.batches = [
                MicroBatch(images.float() / 127.5 - 1, labels, latents)
                for (images, labels), latents in zip(
                    itertools.islice(reals, passes), source.draw(0, 0, device), strict=True
                )
            ]

    def restart(self) -> None:
        """Make the next step one in which everything is due."""
        self.state.cur_nimg = _FIRST_STEP * self.state.config.schedule.batch

    def step(self) -> dict[str, float]:
        """Run every phase once and return the seconds that each took."""
        seed_step(0, 0, 0)
        seconds = {}
        for phase in self.phases:
            started_sec = self._now()
            phase.step(self.batches)
            seconds[phase.name] = self._now() - started_sec
        self.state.cur_nimg += self.state.config.schedule.batch
        return seconds

    def iteration_sec(self, steps: int) -> tuple[float, int]:
        """Return the mean time of an iteration, phases weighted by how often they are due, and over how many steps.

        Warm-up steps come first. On the CPU fewer steps are run if they would take too long.
        """
        is_cuda = self.device.type == "cuda"
        end_sec = time.monotonic() + CPU_SEC
        for _ in range(_WARM_UP_STEPS if is_cuda else 1):
            self.step()
        if is_cuda:
            self.restart()
            forget_peak(self.device)
        timed: list[dict[str, float]] = []
        while len(timed) < steps and (is_cuda or not timed or time.monotonic() < end_sec):
            timed.append(self.step())
        total_sec = sum(seconds[phase.name] / phase.interval for seconds in timed for phase in self.phases)
        return total_sec / len(timed), len(timed)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def forget_peak(device: torch.device) -> None:
    """Free unused memory and forget the peak, which may be that of algorithms that cuDNN tried and did not choose."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
