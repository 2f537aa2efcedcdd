"""Options that several commands of generate.py share, and their values."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dnnlib.command_line import SETTINGS, Command, one_line_errors
from dnnlib.paths import require_outside, user_path
from dnnlib.text import parse_int_list, parse_number_list

if TYPE_CHECKING:
    from sampling.renderer import Renderer, Request
    from training.networks.generator import Generator

NETWORK_HELP = "network-snapshot-*.pkl or training-state-*.pt: file, https://... or hf://user/repo/file."
MAX_SEED = 2**32 - 1  # of numpy.random.RandomState
MAX_NUMBER = 1000  # of --trunc and the like
MAX_COUNT = 2**16  # of --batch and the like
Function = TypeVar("Function", bound=Callable[..., Any])


class NetworkCommand(Command):
    """A command whose --network may be an address, which stays in `context.meta["address"]`."""

    def invoke(self, context: click.Context) -> Any:
        with one_line_errors(bool(context.params["debug"])):
            given = context.params["network"]
            context.params["network"] = local_network(given)
            context.meta["address"] = given if context.params["network"] != given else ""
        return super().invoke(context)


def local_network(network: str) -> str:
    """The local file of --network, downloaded if it is an address. Raises ValueError."""
    from dnnlib.urls import local_file
    from metrics.cache import default_folder

    return local_file(network, default_folder())


command = partial(click.command, cls=NetworkCommand, context_settings=SETTINGS)


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
        numbers = parse_number_list(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return [bounded(context, parameter, number) for number in numbers]


def bounded(context: click.Context, parameter: click.Parameter, value: float) -> float:
    """A finite number of a size that makes sense."""
    if not abs(value) <= MAX_NUMBER:
        raise click.BadParameter(f"{value:g} is not in the range -{MAX_NUMBER}..{MAX_NUMBER}")
    return value


def output_folder(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    """A folder that exists or can be made; checked before any work."""
    try:
        return None if value is None else writable(user_path(value))
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
    if not nearest.exists():
        raise ValueError(f"{nearest} is a link to {os.readlink(nearest)}, which does not exist; name another folder")
    if not nearest.is_dir():
        raise ValueError(f"{nearest} is a file; name a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{nearest} is not writable; name another folder")
    return folder


def make_folder(generator: "Generator", folder: Path, option: str = "--outdir") -> Path:
    """The folder, made if it does not exist. Raises ValueError if it is inside the network's training set."""
    config = generator.run_config
    check_output(folder, option, config.data.path if config else "", "the training set")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_output(written: Path, option: str, images: str, source: str) -> None:
    """Raise ValueError if a path to write is inside a folder of images, if that exists."""
    if images and user_path(images).exists():
        require_outside(written, option, images, source)


def combined(*chosen: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Several options as one decorator; the help lists them in this order."""

    def decorate(function: Function) -> Function:
        for option in reversed(chosen):
            function = option(function)
        return function

    return decorate


ema = click.option(
    "--ema", type=float, metavar="KIMG", help="Half-life of the averaged generator.  [default: the first]"
)
network = combined(click.option("--network", required=True, metavar="FILE", help=NETWORK_HELP), ema)
seeds = click.option(
    "--seeds", required=True, callback=number_list, metavar="LIST", help="Seeds, such as 0-5 or 1,5,100-105."
)
outdir = click.option(
    "--outdir", required=True, callback=output_folder, metavar="DIR", help="Where to save the results."
)
trunc = click.option(
    "--trunc",
    default=1.0,
    callback=bounded,
    metavar="PSI",
    help="Truncation psi: 1 = full variety, 0 = the mean image.",
)
labels = combined(
    click.option(
        "--class", "class_name", metavar="CLASS", help="Class by number or name.  [default: seed modulo classes]"
    ),
    click.option(
        "--label",
        metavar="LIST",
        help="Label vector, such as 0.7,0,0.3.  [default for networks trained on vectors: drawn from the training set]",
    ),
)
noise_mode = click.option(
    "--noise-mode", default="const", type=click.Choice(("const", "random", "none")), help="Noise of the layers."
)
cutoff = click.option(
    "--trunc-cutoff",
    type=click.IntRange(0, MAX_COUNT),
    metavar="N",
    help="Truncate only the first N styles.  [default: all]",
)
image_format = click.option(
    "--format", "extension", default="png", type=click.Choice(["png", "jpg", "webp"]), help="File format."
)
batch = click.option("--batch", default=32, type=click.IntRange(1, MAX_COUNT), metavar="N", help="Images per batch.")
debug = click.option("--debug", is_flag=True, help="Show the Python traceback of an error.")


network_seeds = combined(network, seeds)
styles = combined(trunc, cutoff, labels)
drawing = combined(noise_mode, batch, debug)


def make_request(generator: "Generator", chosen: dict[str, Any]) -> "Request":
    """How --class, --label, --trunc and --trunc-cutoff turn seeds into styles."""
    from sampling.labels import choose_labels
    from sampling.renderer import Request

    labels = choose_labels(generator, chosen["class_name"], chosen["label"])
    return Request(labels, chosen.get("trunc", 1.0), chosen["trunc_cutoff"])


def open_network(chosen: dict[str, Any]) -> "tuple[Generator, Request, Renderer]":
    """The network, how its seeds become styles, and what makes images of styles."""
    from sampling.renderer import Renderer, load

    generator = load(chosen["network"], chosen["ema"])
    return generator, make_request(generator, chosen), Renderer(generator, chosen["noise_mode"], chosen["batch"])


def table_file(name: str, generator: "Generator", chosen: dict[str, Any], rows: int, columns: int) -> Path:
    """The file of a table in --outdir, which is made. Raises ValueError if --format cannot hold so many images."""
    from sampling.tables import check_table

    check_table(chosen["extension"], generator, rows, columns)
    return make_folder(generator, chosen["outdir"]) / f"{name}.{chosen['extension']}"


def parse_grid(text: str) -> tuple[int, int]:
    """Rows and columns of "RxC". Raises ValueError."""
    rows, x, columns = text.lower().partition("x")
    if not (x and rows.isdecimal() and columns.isdecimal() and int(rows) * int(columns) >= 1):
        raise ValueError(f"--grid={text}: write rows x columns, such as 4x10")
    return int(rows), int(columns)
