"""What the commands of generate.py share: their options, the network and what draws its images."""

import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dnnlib.command_line import SETTINGS, Command
from dnnlib.text import parse_int_list, parse_number_list

if TYPE_CHECKING:
    from sampling.renderer import Renderer
    from sampling.styles import Request
    from training.networks.generator import Generator

NETWORK_HELP = "Network snapshot, network-snapshot-*.pkl."
NOISE_MODES = ("const", "random", "none")
MAX_SEED = 2**32 - 1  # of numpy's generator, which the published images come from
COMPILE_FROM = 1000  # images; compiling takes longer than fewer
Function = TypeVar("Function", bound=Callable[..., Any])
command = partial(click.command, cls=Command, context_settings=SETTINGS)


def number_list(context: click.Context, parameter: click.Parameter, value: str | None) -> list[int] | None:
    """Numbers from ranges and lists, such as 0-35,100; None = not given."""
    try:
        numbers = None if value is None else parse_int_list(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if numbers and max(numbers) > MAX_SEED:
        raise click.BadParameter(f"{max(numbers)} is too large; the largest is {MAX_SEED}")
    return numbers


def decimal_list(context: click.Context, parameter: click.Parameter, value: str) -> list[float]:
    """Numbers such as -1,0,0.5."""
    try:
        return parse_number_list(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def finite(context: click.Context, parameter: click.Parameter, value: float) -> float:
    """A number that is neither infinite nor not a number."""
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is no finite number")
    return value


def output_folder(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """The name of a folder that is there or can be made; looked at before any work."""
    try:
        if value is not None:
            check_folder(Path(value).expanduser())
    except (ValueError, RuntimeError) as error:  # the latter of expanduser
        raise click.BadParameter(str(error)) from None
    return value


# What several commands take.
network_option = click.option("--network", required=True, metavar="FILE", help=NETWORK_HELP)
seeds_option = click.option(
    "--seeds", required=True, callback=number_list, metavar="LIST", help="Seeds, such as 0-5 or 1,5,100-105."
)
outdir_option = click.option(
    "--outdir", required=True, callback=output_folder, metavar="DIR", help="Where the results go."
)
trunc_option = click.option(
    "--trunc", default=1.0, callback=finite, metavar="PSI", help="Truncation: 1 = full variety, 0 = the mean image."
)
class_option = click.option(
    "--class", "class_name", metavar="CLASS", help="Class by number or name.  [default: seed modulo classes]"
)
noise_mode_option = click.option(
    "--noise-mode", default="const", type=click.Choice(NOISE_MODES), help="Noise of the layers."
)
cutoff_option = click.option(
    "--trunc-cutoff", type=click.IntRange(0), metavar="N", help="Truncate only the first N styles.  [default: all]"
)
format_option = click.option(
    "--format", "extension", default="png", type=click.Choice(["png", "jpg", "webp"]), help="File type."
)
batch_option = click.option(
    "--batch", default=32, type=click.IntRange(1), metavar="N", help="Images generated at once."
)
debug_option = click.option("--debug", is_flag=True, help="Show the Python traceback of an error.")


def options(*chosen: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Several options as one decorator; the help lists them in this order."""

    def decorate(function: Function) -> Function:
        for option in reversed(chosen):
            function = option(function)
        return function

    return decorate


drawing_options = options(noise_mode_option, batch_option, debug_option)


def load(network: str, ema: float | None = None) -> "Generator":
    """The averaged generator of a snapshot, with this half-life or the first, on a GPU if there is one."""
    import torch

    from training.checkpoint.snapshot import load_generator

    return load_generator(network, torch.device("cuda" if torch.cuda.is_available() else "cpu"), ema)


def make_request(generator: "Generator", chosen: dict[str, Any]) -> "Request":
    """How --class, --trunc and --trunc-cutoff have styles made of seeds."""
    from sampling.classes import find_class
    from sampling.styles import Request

    class_index = find_class(generator, chosen.get("class_name"))
    return Request(class_index, chosen.get("trunc", 1.0), chosen["trunc_cutoff"])


def make_renderer(generator: "Generator", chosen: dict[str, Any], count: int = 0) -> "Renderer":
    """What makes `count` images of styles as --noise-mode, --batch, --precision and --compile say."""
    from sampling.renderer import Renderer
    from sampling.styles import device_of
    from training.compilation import resolve_compile
    from training.config import PerformanceConfig

    compiling = chosen.get("compile", "0")
    if compiling == "auto" and count < COMPILE_FROM:
        compiling = "0"
    if reason := resolve_compile(compiling, device_of(generator))[1]:
        print(reason)
    performance = PerformanceConfig(precision=chosen.get("precision", "fp32"), compile=compiling)
    return Renderer(generator, chosen["noise_mode"], chosen["batch"], performance)


def check_folder(folder: Path) -> None:
    """Raise ValueError unless a folder is there or can be made, and files written in it."""
    try:
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
    except OSError as error:  # a folder above that may not be looked into, a name that is too long
        raise ValueError(f"{folder} cannot be used ({error.strerror}); name another folder") from None
    if not nearest.is_dir():
        raise ValueError(f"{nearest} is a file; name a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"nothing can be written in {nearest}; name another folder")


def make_folder(outdir: str) -> Path:
    """The folder of --outdir, which is made unless it is there."""
    folder = Path(outdir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def parse_grid(text: str) -> tuple[int, int]:
    """Rows and columns of "RxC". Raises ValueError."""
    rows, x, columns = text.lower().partition("x")
    if not (x and rows.isdecimal() and columns.isdecimal() and int(rows) * int(columns) >= 1):
        raise ValueError(f"--grid={text}: write it as rows x columns, such as 4x10")
    return int(rows), int(columns)
