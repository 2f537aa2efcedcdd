"""Times calls that do the same in different ways and makes rows of them."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import click

from benchmarks.common import Settings
from benchmarks.modes import BASELINE, Mode
from benchmarks.rows import Row, device_name
from benchmarks.timing import Call, interleaved, matrix_rate, peak_bytes, speed_up, warm_up


@dataclass(frozen=True)
class Way:
    """One way to do it."""

    call: Call
    batch: int  # images per call
    mode: Mode | None = None  # whose matrix rate it is set against; None = it is not about matrix products
    flops: float = 0.0  # of a call
    saved_bytes: int | None = None  # stored by a call for the backward pass


def compared(
    settings: Settings, preset: str, phase: str, ways: dict[str, Way], with_memory: bool = True
) -> Iterator[Row]:
    """Time all ways in turn; the rows of those for which the device's memory suffices."""
    calls = warm_up({name: way.call for name, way in ways.items()}, settings.device)
    for name in ways.keys() - calls.keys():
        click.echo(f"{preset} {phase}: {name} does not fit into the device's memory")
    peaks = {name: peak_bytes(call, settings.device) for name, call in calls.items()} if with_memory else {}
    times = interleaved(calls, settings.device, settings.rounds, settings.least_sec)
    per_image = {name: [sec / ways[name].batch for sec in times[name]] for name in times}
    for name, secs in per_image.items():
        way, images_per_sec = ways[name], 1 / statistics.median(secs)
        yield Row(
            preset=preset,
            phase=phase,
            mode=name,
            device=device_name(settings.device),
            batch=way.batch,
            images_per_sec=images_per_sec,
            peak_mem_mb=peaks[name] / 1e6 if with_memory and not (way.mode and way.mode.graphs) else None,
            saved_mb_per_image=None if way.saved_bytes is None else way.saved_bytes / way.batch / 1e6,
            ratio_to_baseline=speed_up(per_image[BASELINE], secs) if BASELINE in per_image else None,
            matrix_rate_share=(
                None
                if way.mode is None
                else way.flops / way.batch * images_per_sec / matrix_rate(way.mode, settings.device)
            ),
        )
