"""How many images a forward pass may have, and how many of them fit into GPU memory (--batch-gpu=auto)."""

import contextlib
import gc
import math
import re
from dataclasses import replace
from pathlib import Path

import torch

from dnnlib.command_line import memory_shortage
from torch_utils.distributed import all_reduce_max
from training.compilation import resolve_graphs
from training.config import RunConfig
from training.data.cache import device_bytes
from training.data.stream import ImageDataset
from training.plan.probe import Probe, forget_peak
from training.run.folder import with_batch_gpu_of_newest

FITTING_SHARE = 0.9  # of the free memory that a step may take; the rest is for what varies
_NO_ROOM_FOR_CUDNN = re.compile("(FIND|GET) was unable to find an engine")  # whose workspaces did not fit
_PASSES = 2  # the second one adds to existing gradients


def micro_batches(config: RunConfig, dataset: ImageDataset, num_processes: int) -> list[int]:
    """Return the valid numbers of images per forward pass, largest first; ConfigError if there is none.

    None is smaller than the minibatch-std group, so that the algorithm does not depend on the memory of the GPU.
    """
    share = max(config.schedule.batch // num_processes, 1)
    found = []
    for count in range(share, min(config.discriminator.mbstd_group, share) - 1, -1):
        with contextlib.suppress(ValueError):
            if share % count == 0:
                config.changed(schedule={"batch_gpu": count}).check(dataset.spec, num_processes)
                found.append(count)
    if not found:
        config.changed(schedule={"batch_gpu": None}).check(dataset.spec, num_processes)
    return found


def initial_batch_gpu(
    config: RunConfig, dataset: ImageDataset, num_processes: int, outdir: Path | None
) -> tuple[RunConfig, bool]:
    """Return the configuration with its largest valid micro-batch, and whether `search_batch_gpu` must follow on a GPU.

    A run to resume from `outdir` keeps the number it has, without a search; on a GPU, one without a number is searched for.
    """
    has_gpu = torch.cuda.is_available()
    resumed = None if outdir is None else with_batch_gpu_of_newest(outdir, config)
    if resumed is not None and (resumed.schedule.batch_gpu is not None or not has_gpu):
        return resumed, False
    largest = micro_batches(config, dataset, num_processes)[0]
    return config.changed(schedule={"batch_gpu": largest}), has_gpu


def search_batch_gpu(config: RunConfig, dataset: ImageDataset, num_processes: int, device: torch.device) -> RunConfig:
    """Return the configuration with the largest micro-batch that fits into the memory of a GPU; ValueError if none does."""
    choices = micro_batches(config, dataset, num_processes)
    for count in choices:
        candidate = config.changed(schedule={"batch_gpu": count})
        if _fits(candidate, dataset, num_processes, device):
            print(f"--batch-gpu=auto: {count} images per forward pass fit into the memory of {device}")
            return candidate
    raise ValueError(
        f"--batch-gpu=auto: not even {choices[-1]} images per forward pass fit into the memory of {device}; end other "
        f"programs that use it, or choose a smaller network (--g_dict, --num_layers, --linformer=1)"
    )


def agree_on_batch_gpu(config: RunConfig) -> RunConfig:
    """Return the configuration with the smallest micro-batch of all ranks, which fits into each GPU; call it on every rank."""
    own = config.schedule.batch_gpu
    smallest = -int(all_reduce_max(torch.tensor(-(own or 0))))
    return config if own is None else config.changed(schedule={"batch_gpu": smallest})


def _fits(config: RunConfig, dataset: ImageDataset, num_processes: int, device: torch.device) -> bool:
    """Return whether steps of a configuration leave some memory free."""
    _free_memory()
    limit = FITTING_SHARE * (torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    cache_bytes = device_bytes(dataset, config.data.cache, device)
    shares = 2 if resolve_graphs(config.performance, device) else 1  # graphs keep memory that other phases cannot use
    peak_bytes = _peak_bytes(config, dataset, num_processes, device)
    _free_memory()
    return shares * peak_bytes + cache_bytes <= limit


def _peak_bytes(config: RunConfig, dataset: ImageDataset, num_processes: int, device: torch.device) -> float:
    """Return the memory that a step takes; infinity if there is not enough."""
    eager = replace(config.performance, compile="0", cuda_graphs=False)  # compiling would take minutes
    try:
        probe = Probe(replace(config, performance=eager), dataset, device, num_processes, _PASSES)
        probe.step()  # allocates the moments of the optimizers
        probe.restart()
        forget_peak(device)
        probe.step()
        return torch.cuda.max_memory_reserved(device)
    except RuntimeError as error:  # of which OutOfMemoryError is one kind
        if memory_shortage(error) is None and not _NO_ROOM_FOR_CUDNN.search(str(error)):
            raise
        return math.inf


def _free_memory() -> None:
    gc.collect()
    torch.cuda.empty_cache()
