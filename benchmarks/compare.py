"""Times calls that do the same in different ways and makes rows of them."""

import statistics
from collections.abc import Callable, Generator
from dataclasses import dataclass

import click

from benchmarks.common import Settings
from benchmarks.modes import BASELINE, Mode
from benchmarks.rows import Row, device_name
from benchmarks.timing import Call, interleaved, matrix_rate, peak_bytes, warm_up

Times = dict[str, list[float]]  # seconds of each round, by way


@dataclass(frozen=True)
class Way:
    """One way to do it."""

    call: Call
    batch: int  # images per call
    mode: Mode | None = None  # whose matrix rate it is set against; None = it is not about matrix products
    flops: float = 0.0  # of a call
    saved_bytes: Callable[[], int] | None = None  # stored by a call for the backward pass; None = not of interest
    lasting_bytes: Callable[[], int] = lambda: 0  # what it keeps between calls


def compared(
    settings: Settings,
    preset: str,
    phase: str,
    ways: dict[str, Way],
    with_memory: bool = True,
    shares: Times | None = None,
) -> Generator[Row, None, Times]:
    """Time all ways in turn; yield the rows of those for which the device's memory suffices, return the times.

    Of CUDA graphs no memory is given: they take none while they are measured. `shares` are seconds to add to each round;
    ways that it lacks are left out.
    """
    device = settings.device
    calls = warm_up({name: way.call for name, way in ways.items()}, device)
    for name in ways.keys() - calls.keys():
        click.echo(f"{preset} {phase}: {name} does not fit into the device's memory at batch {ways[name].batch}")
    peaks = {name: ways[name].lasting_bytes() + peak_bytes(calls[name], device) for name in calls if with_memory}
    times = interleaved(calls, device, settings.rounds, settings.least_sec)
    if shares is not None:
        both = {name: zip(secs, shares[name], strict=True) for name, secs in times.items() if name in shares}
        times = {name: [sec + share for sec, share in pairs] for name, pairs in both.items()}
    per_image = {name: [sec / ways[name].batch for sec in times[name]] for name in times}
    for name, secs in per_image.items():
        way, images_per_sec = ways[name], 1 / statistics.median(secs)
        ratios = [slow / sec for slow, sec in zip(per_image.get(BASELINE, []), secs, strict=False)]  # of each round
        rate = None if way.mode is None else matrix_rate(way.mode.precision, device)
        yield Row(
            preset=preset,
            phase=phase,
            mode=name,
            device=device_name(device),
            batch=way.batch,
            images_per_sec=images_per_sec,
            peak_mem_mb=peaks[name] / 1e6 if with_memory and not (way.mode and way.mode.graphs) else None,
            saved_mb_per_image=None if way.saved_bytes is None else way.saved_bytes() / way.batch / 1e6,
            ratio_to_baseline=statistics.median(ratios) if ratios else None,
            matrix_rate_share=None if rate is None else way.flops / way.batch * images_per_sec / rate,
        )
    return times
