"""What the benchmark scripts share: their options, the presets' images, and printing and writing what they measure."""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.modes import Mode, default_modes, parse_mode
from benchmarks.rows import HEADER, Row, machine, read_rows, write_rows
from dnnlib.dataclass_values import require
from dnnlib.paths import user_path
from torch_utils.ops import native
from training.config import DatasetSpec, RunConfig
from training.presets import preset

SIZES_PX = {"demo": 32, "cifar": 32, "stl10": 48, "celeba64": 64, "auto": 64, "church128": 128, "paper256": 256}
BATCH = {"cpu": "4", "cuda": "32"}
ROUNDS, LEAST_SEC = 5, 0.2
RAISED = {"MALLOC_MMAP_THRESHOLD_": 2**32, "MALLOC_TRIM_THRESHOLD_": 2**32, "MALLOC_TOP_PAD_": 2**28}  # bytes

OPTIONS = [
    click.option("--presets", "--preset", metavar="NAMES", help=f"Of {', '.join(SIZES_PX)}."),
    click.option("--batch", metavar="LIST", help="Images per pass, such as 32 or 32,256."),
    click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True),
    click.option("--rounds", type=click.IntRange(1), help=f"Turns of each.  [default: {ROUNDS}]"),
    click.option("--threads", type=click.IntRange(1), help="Of the CPU.  [default: PyTorch's]"),
    click.option("--quick", is_flag=True, help="One turn of the demo preset: does everything run?"),
    click.option("--malloc", is_flag=True, help="Also measure with glibc's thresholds raised (CPU)."),
    click.option("--json", "json_path", type=click.Path(dir_okay=False), help="Also write the rows here."),
]  # fmt: skip


modes_option = click.option(
    "--modes",
    metavar="NAMES",
    help="Of ours: fp32, tf32, bf16, fp16, each also with +compile or +graphs.  [default: by device]",
)


def shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that all benchmarks have."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class Settings:
    """The values of the shared options."""

    presets: list[str]
    batches: list[int]
    modes: list[Mode]
    device: torch.device
    rounds: int
    least_sec: float  # short calls are repeated until a turn takes so long
    is_quick: bool
    with_malloc: bool
    json_path: Path | None


def read_settings(options: dict[str, Any], presets: Sequence[str], batch: dict[str, str]) -> Settings:
    """Return the settings of a command line; raises ValueError."""
    name = options["device"]
    require(name.partition(":")[0] in BATCH, f"--device={name} is not supported; use cpu or cuda")
    device = torch.device(name)
    require(
        device.type == "cpu" or torch.cuda.is_available(), f"--device={device}: PyTorch sees no GPU; use --device=cpu"
    )
    is_quick = options["quick"]
    chosen = words(options["presets"]) or (["demo"] if is_quick else list(presets))
    for name in chosen:
        require(name in SIZES_PX, f"--presets={name} is not known; choose from {', '.join(SIZES_PX)}")
    batches = words(options["batch"] or ("2" if is_quick else batch[device.type]))
    for text in batches:
        require(text.isdecimal() and int(text) > 0, f"--batch={text}: give whole numbers such as 32 or 32,256")
    is_glibc = platform.libc_ver()[0] == "glibc"
    require(not options["malloc"] or (device.type == "cpu" and is_glibc), "--malloc is about glibc's memory on the CPU")
    return Settings(
        presets=chosen,
        batches=[int(text) for text in batches],
        modes=[parse_mode(name) for name in words(options.get("modes"))] or default_modes(device),
        device=device,
        rounds=options["rounds"] or (1 if is_quick else ROUNDS),
        least_sec=0.0 if is_quick else LEAST_SEC,
        is_quick=is_quick,
        with_malloc=options["malloc"],
        json_path=user_path(options["json_path"]) if options["json_path"] else None,
    )


def words(text: str | None) -> list[str]:
    """Return the parts of a comma-separated list."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def images_of(name: str) -> DatasetSpec:
    """Return the images that a preset is measured with, without labels."""
    return DatasetSpec(SIZES_PX[name], SIZES_PX[name], 3)


def config_of(name: str, batch: int) -> RunConfig:
    """Return a preset for such batches; raises ConfigError where they do not suit it."""
    spec = images_of(name)
    config = preset(name, spec)
    config = config.changed(schedule={"batch": batch, "batch_gpu": None})
    config.check(spec)
    return config


def run_benchmark(
    options: dict[str, Any],
    measure: Callable[[Settings], Iterator[Row]],
    presets: Sequence[str],
    batch: dict[str, str] = BATCH,
) -> None:
    """Measure, print and write; a wrong option raises click.ClickException.

    Args:
        options: The command line.
        measure: Yields the rows.
        presets: Measured unless --presets says otherwise.
        batch: Images per pass by type of device, unless --batch says otherwise.
    """
    try:
        settings = read_settings(options, presets, batch)
        if options["threads"]:
            torch.set_num_threads(options["threads"])
        torch.backends.cudnn.benchmark = True
        native.prepare(settings.device)
        click.echo(", ".join(f"{name} {value}" for name, value in machine(settings.device).items()))
        click.echo(HEADER)
        rows: list[Row] = []
        for row in measure(settings):
            rows.append(row)
            click.echo(row.line())
            if settings.json_path:  # with every row, so that a run that is ended leaves what it had
                write_rows(settings.json_path, settings.device, rows)
        if settings.with_malloc:
            click.echo(
                f"\nThe same with {' '.join(f'{name}={value}' for name, value in RAISED.items())}: the last column"
            )
            raised = rows_with_raised_thresholds()
            click.echo(f"{HEADER}{'raised':>8}")
            for row, other in zip(rows, raised, strict=True):
                click.echo(row.line(other))
            if settings.json_path:
                write_rows(settings.json_path, settings.device, rows, raised)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


def rows_with_raised_thresholds() -> list[Row]:
    """Return what the same command measures in a process whose allocator keeps large buffers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, *(word for word in sys.argv if word != "--malloc"), f"--json={path}"]
        environment = {**os.environ, **{name: str(value) for name, value in RAISED.items()}}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"with raised thresholds the same command fails: {done.stderr.strip()[-500:]}")
        return read_rows(path)
