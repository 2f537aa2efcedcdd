"""How many images a forward pass may have, and how many of them fit into the memory (--batch-gpu=auto)."""

import contextlib
import gc
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from training.compilation import resolve_graphs
from training.config import RunConfig
from training.data.cache import device_bytes
from training.data.stream import ImageDataset
from training.plan.probe import Probe
from training.run.folder import with_batch_gpu_of_newest

FITTING_SHARE = 0.9  # of the free memory that a step may take; the rest is for what varies
_PASSES = 2  # the second one finds gradients to add to


def micro_batches(config: RunConfig, dataset: ImageDataset, num_processes: int) -> list[int]:
    """Return how many images a forward pass may have, largest first.

    None of them cuts a minibatch-std group: a GPU with little memory trains by the same algorithm as a large one.

    Raises:
        ConfigError: No number divides the batch and suits the other settings.
    """
    share = max(config.schedule.batch // num_processes, 1)
    found = []
    for count in range(share, min(config.discriminator.mbstd_group, share) - 1, -1):
        with contextlib.suppress(ValueError):
            if share % count == 0:
                with_micro_batch(config, count).check(dataset.spec, num_processes)
                found.append(count)
    if not found:
        with_micro_batch(config, None).check(dataset.spec, num_processes)
    return found


def with_micro_batch(config: RunConfig, count: int | None) -> RunConfig:
    """Return the configuration with so many images per forward pass; None = all of a process."""
    return replace(config, schedule=replace(config.schedule, batch_gpu=count))


@dataclass(frozen=True)
class MemoryProbe:
    """What is to be tried on the GPU before the images per forward pass are settled."""

    num_processes: int
    is_continued: bool  # the run to go on with has a number, which only may be too large here


def initial_batch_gpu(
    config: RunConfig, dataset: ImageDataset, num_processes: int, outdir: Path | None
) -> tuple[RunConfig, MemoryProbe | None]:
    """Return the settings with the most images per forward pass that suit them, and what must be tried; None = nothing.

    The number is that of the run to go on with, where `outdir` has it.
    """
    continued = None if outdir is None else with_batch_gpu_of_newest(outdir, config)
    trial = MemoryProbe(num_processes, continued is not None) if torch.cuda.is_available() else None
    if continued is not None:
        return continued, trial
    return with_micro_batch(config, micro_batches(config, dataset, num_processes)[0]), trial


def search_batch_gpu(config: RunConfig, dataset: ImageDataset, trial: MemoryProbe, device: torch.device) -> RunConfig:
    """Return the settings with the most images per forward pass that fit into the memory of a device.

    Raises:
        ValueError: None fits, or not as many as the run to go on with has.
    """
    reserved_bytes = device_bytes(dataset, config.data.cache, device)
    search = MemorySearch(config, dataset, device, trial.num_processes, reserved_bytes)
    if not trial.is_continued:
        return with_micro_batch(config, search.largest())
    search.check(config.schedule.micro_batch(trial.num_processes))
    return config


@dataclass(frozen=True)
class MemorySearch:
    """Looks for the most images per forward pass that fit into the memory of a device."""

    config: RunConfig
    dataset: ImageDataset
    device: torch.device
    num_processes: int
    reserved_bytes: int = 0  # that other things will take

    def largest(self, say: Callable[[str], None] = print) -> int:
        """Return the largest number that fits; on the CPU, the largest that suits the settings.

        Raises:
            ValueError: None fits.
        """
        choices = micro_batches(self.config, self.dataset, self.num_processes)
        if self.device.type != "cuda":
            return choices[0]
        for count in choices:
            if self.fits(count):
                say(f"--batch-gpu=auto: {count} images per forward pass fit into the memory of {self.device}")
                return count
        raise ValueError(
            f"--batch-gpu=auto: not even {choices[-1]} images per forward pass fit into the memory of {self.device}; end other "
            f"programs that use it, or choose a smaller network (--g_dict, --num_layers, --linformer=1)"
        )

    def check(self, count: int) -> None:
        """Raise ValueError where the images per forward pass of a run do not fit here, with the number that does."""
        if self.device.type != "cuda" or self.runs(count):
            return
        choices = micro_batches(self.config, self.dataset, self.num_processes)
        fewer = next((choice for choice in choices if choice < count and self.fits(choice)), None)
        advice = f", or go on with fewer: --batch-gpu={fewer} --force" if fewer else "; no smaller number fits either"
        raise ValueError(
            f"--batch-gpu=auto: the run to go on with has {count} images per forward pass, too many for the memory of "
            f"{self.device}; end other programs that use it{advice}"
        )

    def runs(self, count: int) -> bool:
        """Return whether steps of so many images per forward pass end, however little memory is left."""
        self._clean_up()
        has_run = math.isfinite(self._peak_bytes(count))
        self._clean_up()
        return has_run

    def fits(self, count: int) -> bool:
        """Return whether steps of so many images per forward pass leave some memory free."""
        self._clean_up()
        limit = FITTING_SHARE * (torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device))
        has_graphs = resolve_graphs(self.config.performance, self.device)
        shares = 2 if has_graphs else 1  # graphs keep memory that other phases cannot use
        is_small = shares * self._peak_bytes(count) + self.reserved_bytes <= limit
        self._clean_up()
        return is_small

    def _peak_bytes(self, count: int) -> float:
        """Return the memory that steps take; infinity if there is not enough."""
        try:
            torch.cuda.reset_peak_memory_stats(self.device)
            eager = replace(self.config.performance, compile="0", cuda_graphs=False)  # the compiler would take minutes
            config = with_micro_batch(replace(self.config, performance=eager), count)
            probe = Probe(config, self.dataset, self.device, self.num_processes, _PASSES)
            for _ in range(2):  # the optimizers have their moments from the first one on
                probe.step()
            return torch.cuda.max_memory_reserved(self.device)
        except torch.OutOfMemoryError:
            return float("inf")

    def _clean_up(self) -> None:
        gc.collect()
        torch.cuda.empty_cache()
