"""Times the steps of training and generating: the published formulation and ours in each mode, in turn."""

import functools
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common import Settings, config_of, images_of, modes_option, run_benchmark, shared_options
from benchmarks.contenders import Contender, Ours, Published
from benchmarks.kernels import largest, where_it_waits
from benchmarks.memory import saved_bytes
from benchmarks.modes import BASELINE, Mode, forget_compiled
from benchmarks.rows import Row, device_name
from benchmarks.timing import Call, interleaved, matrix_rate, peak_bytes, speed_up, warm_up
from torch_utils import allocator
from training.config import DatasetSpec, RunConfig
from training.plan.summary import forward_flops, meta_networks
from training.schedule import highest

PRESETS = ("cifar", "celeba64")
PASSES = {  # forward passes of G and D that a phase is worth: a backward pass counts one for each gradient it computes
    "g_forward": (1, 0),
    "g_main": (3, 2),  # the gradient to the images, not to D's weights
    "d_main": (1, 6),
    "d_r1": (0, 6),
    "generate": (1, 0),
}


@dataclass
class Comparison:
    """All that is measured for one preset and batch."""

    preset: str
    batch: int
    settings: Settings
    config: RunConfig = field(init=False)
    spec: DatasetSpec = field(init=False)
    contenders: dict[str, Contender] = field(default_factory=dict)
    modes: dict[str, Mode] = field(default_factory=dict)  # by contender
    times: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # seconds by phase, contender and round
    peaks: dict[str, dict[str, int]] = field(default_factory=dict)  # bytes by phase and contender

    def __post_init__(self) -> None:
        self.config, self.spec = config_of(self.preset, self.batch), images_of(self.preset)
        device = self.settings.device
        self.modes = {BASELINE: Mode("fp32"), **{mode.name: mode for mode in self.settings.modes}}
        self.contenders[BASELINE] = Published(self.config, self.spec, self.batch, device)
        for mode in self.settings.modes:
            self.contenders[mode.name] = Ours(
                replace(self.config, performance=mode.performance), self.spec, self.batch, device
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

    def measure(self, phase: str) -> None:
        """Fill in times and memory of a phase for all that fit into memory."""
        device = self.settings.device
        for contender in self.contenders.values():
            contender.G.requires_grad_(phase == "g_forward")
        calls = warm_up({name: self.call(name, phase) for name in self.contenders}, device)
        for name in self.contenders.keys() - calls.keys():
            click.echo(f"{self.preset} {phase}: {name} does not fit into the device's memory at batch {self.batch}")
        self.peaks[phase] = {name: self.peak_bytes(name, call) for name, call in calls.items()}
        self.times[phase] = interleaved(calls, device, self.settings.rounds, self.settings.least_sec)

    def peak_bytes(self, name: str, call: Call) -> int:
        """Return the bytes a contender keeps and the peak of a call beyond them, gradients included."""
        contender = self.contenders[name]
        for network in (contender.G, contender.D):
            network.zero_grad(set_to_none=True)
        return contender.lasting_bytes() + peak_bytes(call, self.settings.device)

    def rows(self) -> Iterator[Row]:
        """Measure phase by phase."""
        has_r1 = highest(self.config.loss.r1_gamma) > 0
        for phase in ("g_forward", "g_main", "d_main", *(["d_r1"] if has_r1 else []), "iteration", "generate"):
            self.measure(phase)
            if phase == "iteration" and has_r1:
                self.add_r1()
            for name in self.times[phase]:
                yield self.row(phase, name)

    def add_r1(self) -> None:
        """Count the share of the R1 step that falls on each iteration."""
        r1 = self.times["d_r1"]
        self.times["iteration"] = {
            name: [sec + extra / self.config.loss.r1_interval for sec, extra in zip(times, r1[name], strict=True)]
            for name, times in self.times["iteration"].items()
            if name in r1
        }

    def row(self, phase: str, name: str) -> Row:
        """Return the row of one contender in one phase."""
        times = self.times[phase]
        images_per_sec = self.batch / statistics.median(times[name])
        rate = matrix_rate(self.modes[name], self.settings.device)
        is_replayed = self.modes[name].graphs  # which takes no memory while it is measured
        return Row(
            preset=self.preset,
            phase=phase,
            mode=name,
            device=device_name(self.settings.device),
            batch=self.batch,
            images_per_sec=images_per_sec,
            peak_mem_mb=None if is_replayed else self.peaks[phase][name] / 1e6,
            saved_mb_per_image=self.saved_mb(phase, name),
            ratio_to_baseline=speed_up(times[BASELINE], times[name]) if BASELINE in times else None,
            matrix_rate_share=self.flops(phase) * images_per_sec / rate,
        )

    def saved_mb(self, phase: str, name: str) -> float | None:
        """Stored an image for its backward pass by the network that the phase trains; in an iteration by the generator."""
        contender, mode = self.contenders[name], self.modes[name]
        if phase == "generate":
            return 0.0
        if mode.graphs:  # their memory is not to be held on to
            return None
        is_d = phase.startswith("d_")
        network = (contender.D if is_d else contender.G).requires_grad_(True)
        with mode.active():
            return saved_bytes(network, contender.judge if is_d else contender.forward) / self.batch / 1e6

    def flops(self, phase: str) -> float:
        """Floating-point operations of the model for an image, however it is computed."""
        if phase == "iteration":
            r1 = self.flops("d_r1") / self.config.loss.r1_interval if highest(self.config.loss.r1_gamma) > 0 else 0.0
            return self.flops("g_main") + self.flops("d_main") + r1
        of_g, of_d = PASSES[phase]
        g_flops, d_flops = self.forward_flops
        return of_g * g_flops + of_d * d_flops

    @functools.cached_property
    def forward_flops(self) -> tuple[float, float]:
        """Floating-point operations of a forward pass of generator and discriminator for an image."""
        return forward_flops(*meta_networks(self.config, self.spec), self.spec)


def look_inside(comparison: Comparison, name: str) -> None:
    """Print where an iteration of one contender spends its time, and whether it waits for the GPU."""
    device = comparison.settings.device
    run = comparison.call(name, "iteration")
    what = "kernels" if device.type == "cuda" else "operators"
    click.echo(f"\nThe ten largest {what} of an iteration: {comparison.preset}, batch {comparison.batch}, {name}")
    for kernel, ms, share, launches in largest(run, device):
        click.echo(f"{ms:>10.3f} ms {share:>6.1%} {launches:>6} x  {kernel[:110]}")
    if device.type == "cuda":
        for phase in ("iteration", *(["d_r1"] if "d_r1" in comparison.times else [])):
            place = where_it_waits(comparison.call(name, phase))
            click.echo(f"Host synchronisation in {phase}: {place or 'none'}")


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
