"""Times the steps of training and generating: the published formulation and ours in each mode, in turn."""

import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common import Settings, config_of, images_of, modes_option, run_benchmark, shared_options
from benchmarks.compare import Times, Way, compared
from benchmarks.contenders import Contender, Ours, Published
from benchmarks.modes import BASELINE, Mode, forget_compiled
from benchmarks.rows import Row
from benchmarks.timing import Call, saved_bytes
from torch_utils import allocator
from training.plan.summary import forward_flops, meta_networks
from training.schedule import highest

ROOT = Path(__file__).parents[1]
PRESETS = ("cifar", "celeba64")
PASSES = {  # forward passes of G and D that a phase is worth: a backward pass counts one for each gradient it computes
    "g_forward": (1, 0),
    "g_main": (3, 2),  # the gradient to the images, not to D's weights
    "d_main": (1, 6),
    "d_r1": (0, 6),
    "generate": (1, 0),
}
PROFILED_STEPS = 3


class Comparison:
    """All that is measured for one preset and batch."""

    def __init__(self, preset: str, batch: int, settings: Settings) -> None:
        self.preset, self.batch, self.settings = preset, batch, settings
        config, spec, device = config_of(preset, batch), images_of(preset), settings.device
        self.modes = {BASELINE: Mode("fp32"), **{mode.name: mode for mode in settings.modes}}  # by contender
        self.contenders: dict[str, Contender] = {BASELINE: Published(config, spec, batch, device)}
        for mode in settings.modes:
            self.contenders[mode.name] = Ours(replace(config, performance=mode.performance), spec, batch, device)
        self.has_r1 = highest(config.loss.r1_gamma) > 0
        self.r1_interval = config.loss.r1_interval
        self.forward_flops = forward_flops(*meta_networks(config, spec), spec)  # of G and D for an image

    def rows(self) -> Iterator[Row]:
        """Measure phase by phase."""
        r1: Times | None = None
        for phase in ("g_forward", "g_main", "d_main", *(["d_r1"] if self.has_r1 else []), "iteration", "generate"):
            for contender in self.contenders.values():
                contender.G.requires_grad_(phase == "g_forward")
            ways = {name: self.way(name, phase) for name in self.contenders}
            times = yield from compared(
                self.settings, self.preset, phase, ways, shares=r1 if phase == "iteration" else None
            )
            if phase == "d_r1":  # a share of it falls on each iteration
                r1 = {name: [sec / self.r1_interval for sec in secs] for name, secs in times.items()}

    def way(self, name: str, phase: str) -> Way:
        """Return what is measured of a contender in a phase."""
        is_replayed = self.modes[name].graphs  # whose memory is not to be held on to
        return Way(
            self.call(name, phase),
            self.batch,
            self.modes[name],
            self.flops(phase) * self.batch,
            None if is_replayed and phase != "generate" else lambda: self.saved_bytes(name, phase),
            self.contenders[name].lasting_bytes,
        )

    def call(self, name: str, phase: str) -> Call:
        """Return the function to time, with the mode's switches set."""
        contender, mode = self.contenders[name], self.modes[name]
        simple = {"g_forward": contender.forward, "generate": contender.generate, "iteration": contender.iteration}

        def run() -> None:
            if self.settings.device.type == "cpu" and not allocator.is_set_by_user():  # as train.py has it
                allocator.set_thresholds(allocator.DEFAULT if name == BASELINE else allocator.KEEP)
            with mode.active():
                if phase in simple:
                    simple[phase]()
                else:
                    contender.step(phase)

        return run

    def saved_bytes(self, name: str, phase: str) -> int:
        """Stored for its backward pass by the network that the phase trains; in an iteration by the generator."""
        if phase == "generate":
            return 0
        contender, is_d = self.contenders[name], phase.startswith("d_")
        network = (contender.D if is_d else contender.G).requires_grad_(True)
        with self.modes[name].active():
            return saved_bytes(network, contender.judge if is_d else contender.forward)

    def flops(self, phase: str) -> float:
        """Floating-point operations of the model for an image, however it is computed."""
        if phase == "iteration":
            r1 = self.flops("d_r1") / self.r1_interval if self.has_r1 else 0.0
            return self.flops("g_main") + self.flops("d_main") + r1
        of_g, of_d = PASSES[phase]
        g_flops, d_flops = self.forward_flops
        return of_g * g_flops + of_d * d_flops


def look_inside(comparison: Comparison, name: str) -> None:
    """Print where an iteration of one contender spends its time, and whether it waits for the GPU."""
    device = comparison.settings.device
    run = comparison.call(name, "iteration")
    what = "kernels" if device.type == "cuda" else "operators"
    click.echo(f"\nThe ten largest {what} of an iteration: {comparison.preset}, batch {comparison.batch}, {name}")
    for kernel, ms, share, launches in largest(run, device):
        click.echo(f"{ms:>10.3f} ms {share:>6.1%} {launches:>6} x  {kernel[:110]}")
    if device.type == "cuda":
        for phase in ("iteration", *(["d_r1"] if comparison.has_r1 else [])):
            place = where_it_waits(comparison.call(name, phase))
            click.echo(f"Host synchronisation in {phase}: {place or 'none'}")


def largest(call: Callable[[], object], device: torch.device, count: int = 10) -> list[tuple[str, float, float, int]]:
    """Return (name, milliseconds, share of time, launches) of the slowest kernels of a call, on the CPU of its operators."""
    activity = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity], acc_events=True) as profiler:
        for _ in range(PROFILED_STEPS):
            call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    found = []
    for event in profiler.key_averages():
        microsec = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        found.append((event.key, microsec / 1000 / PROFILED_STEPS, event.count // PROFILED_STEPS))
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


def measure(settings: Settings, with_profile: bool) -> Iterator[Row]:
    """Yield all rows of all presets and batches."""
    for preset in settings.presets:
        for batch in settings.batches:
            forget_compiled(settings.modes)
            comparison = Comparison(preset, batch, settings)
            yield from comparison.rows()
            if with_profile:
                for mode in settings.modes:
                    look_inside(comparison, mode.name)


@click.command()
@shared_options
@modes_option
@click.option(
    "--profile", "with_profile", is_flag=True, help="Also show the largest kernels and any waiting for the GPU."
)
def main(with_profile: bool, **options: Any) -> None:
    """Time the phases of training, a whole iteration and generating: the published formulation and ours, in turn."""
    run_benchmark(options, lambda settings: measure(settings, with_profile), PRESETS)


if __name__ == "__main__":
    main()
