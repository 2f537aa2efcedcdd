"""Options that several commands of generate.py share, and their values."""

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
    from sampling.renderer import Request
    from training.networks.generator import Generator

NETWORK_HELP = "Network snapshot, network-snapshot-*.pkl."
MAX_SEED = 2**32 - 1  # of numpy.random.RandomState
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
    """A number that is neither infinite nor NaN."""
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number")
    return value


def output_folder(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    """A folder that exists or can be made; checked before any work."""
    try:
        return None if value is None else writable(Path(value).expanduser())
    except (ValueError, RuntimeError) as error:  # the latter of expanduser
        raise click.BadParameter(str(error)) from None


def output_file(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    """A file that can be written; checked before any work."""
    folder = output_folder(context, parameter, None if value is None else str(Path(value).parent))
    if value is None or folder is None:
        return None
    path = folder / Path(value).name
    if path.is_dir():
        raise click.BadParameter(f"{value} is a folder; name a file")
    return path


def writable(folder: Path) -> Path:
    """The folder; raises ValueError unless it exists or can be made, and files can be written in it."""
    try:
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
    except OSError as error:  # a parent without permission, a name that is too long
        raise ValueError(f"{folder} cannot be used ({error.strerror}); name another folder") from None
    if not nearest.is_dir():
        raise ValueError(f"{nearest} is a file; name a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{nearest} is not writable; name another folder")
    return folder


def make_folder(folder: Path) -> Path:
    """The folder, made if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


network = click.option("--network", required=True, metavar="FILE", help=NETWORK_HELP)
seeds = click.option(
    "--seeds", required=True, callback=number_list, metavar="LIST", help="Seeds, such as 0-5 or 1,5,100-105."
)
outdir = click.option(
    "--outdir", required=True, callback=output_folder, metavar="DIR", help="Where to save the results."
)
trunc = click.option(
    "--trunc", default=1.0, callback=finite, metavar="PSI", help="Truncation psi: 1 = full variety, 0 = the mean image."
)
class_name = click.option(
    "--class", "class_name", metavar="CLASS", help="Class by number or name.  [default: seed modulo classes]"
)
noise_mode = click.option(
    "--noise-mode", default="const", type=click.Choice(("const", "random", "none")), help="Noise of the layers."
)
cutoff = click.option(
    "--trunc-cutoff", type=click.IntRange(0), metavar="N", help="Truncate only the first N styles.  [default: all]"
)
image_format = click.option(
    "--format", "extension", default="png", type=click.Choice(["png", "jpg", "webp"]), help="File format."
)
batch = click.option("--batch", default=32, type=click.IntRange(1), metavar="N", help="Images per batch.")
debug = click.option("--debug", is_flag=True, help="Show the Python traceback of an error.")


def combined(*chosen: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Several options as one decorator; the help lists them in this order."""

    def decorate(function: Function) -> Function:
        for option in reversed(chosen):
            function = option(function)
        return function

    return decorate


styles = combined(trunc, cutoff, class_name)
drawing = combined(noise_mode, batch, debug)


def make_request(generator: "Generator", chosen: dict[str, Any]) -> "Request":
    """How --class, --trunc and --trunc-cutoff turn seeds into styles."""
    from sampling.classes import find_class
    from sampling.renderer import Request

    class_index = find_class(generator, chosen.get("class_name"))
    return Request(class_index, chosen.get("trunc", 1.0), chosen["trunc_cutoff"])


def parse_grid(text: str) -> tuple[int, int]:
    """Rows and columns of "RxC". Raises ValueError."""
    rows, x, columns = text.lower().partition("x")
    if not (x and rows.isdecimal() and columns.isdecimal() and int(rows) * int(columns) >= 1):
        raise ValueError(f"--grid={text}: write rows x columns, such as 4x10")
    return int(rows), int(columns)
