"""Generate pictures from a network snapshot."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dnnlib.command_line import SETTINGS, Script
from dnnlib.text import parse_int_list

if TYPE_CHECKING:
    from training.networks.generator import Generator
    from training.sampling.renderer import Renderer
    from training.sampling.styles import Request

NOISE_MODES = ("const", "random", "none")
Function = TypeVar("Function", bound=Callable[..., Any])

main = Script(context_settings=SETTINGS)


def seed_list(context: click.Context, parameter: click.Parameter, value: str | None) -> list[int]:
    """Seeds from ranges and lists, such as 0-35,100."""
    try:
        return [] if value is None else parse_int_list(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


# What several commands take.
network_option = click.option(
    "--network", required=True, metavar="FILE", help="Network snapshot, network-snapshot-*.pkl."
)
outdir_option = click.option("--outdir", required=True, metavar="DIR", help="Where the results go.")
trunc_option = click.option(
    "--trunc", default=1.0, metavar="PSI", help="Truncation: 1 = full variety, 0 = the mean picture."
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
    "--batch", default=32, type=click.IntRange(1), metavar="N", help="Pictures generated at once."
)
debug_option = click.option("--debug", is_flag=True, help="Show the Python traceback of an error.")


def options(*chosen: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Several options as one decorator; the help lists them in this order."""

    def decorate(function: Function) -> Function:
        for option in reversed(chosen):
            function = option(function)
        return function

    return decorate


def load(network: str) -> "Generator":
    """The generator of a snapshot, on a GPU if there is one."""
    import torch

    from training.checkpoint import load_generator

    return load_generator(network, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def make_request(generator: "Generator", chosen: dict[str, Any]) -> "Request":
    """How --class, --trunc and --trunc-cutoff have styles made of seeds."""
    from training.sampling.classes import find_class
    from training.sampling.styles import Request

    return Request(find_class(generator, chosen.get("class_name")), chosen.get("trunc", 1.0), chosen["trunc_cutoff"])


def make_renderer(generator: "Generator", chosen: dict[str, Any]) -> "Renderer":
    """What makes pictures of styles as --noise-mode and --batch say."""
    from training.sampling.renderer import Renderer

    return Renderer(generator, chosen["noise_mode"], chosen["batch"])


def make_folder(outdir: str) -> Path:
    """The folder of --outdir, which is made unless it is there."""
    folder = Path(outdir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@main.own_command
@network_option
@click.option("--seeds", callback=seed_list, metavar="LIST", help="Seeds, such as 0-35 or 1,5,100-105.")
@click.option("--outdir", metavar="DIR", help="Where the pictures go: seed0000.png, ...")
@options(trunc_option, class_option, noise_mode_option, cutoff_option)
@click.option(
    "--grid", is_flag=False, flag_value="auto", metavar="[RxC]", help="Also write them side by side, R rows of C."
)
@options(format_option, batch_option)
@click.option("--export", metavar="FILE", help="Rewrite the snapshot as .pkl of this program or as .safetensors.")
@debug_option
def pictures(**chosen: Any) -> None:
    """Generate pictures from a network snapshot; the same seed gives the same picture every time.

    \b
    Examples:
      python generate.py --network=network-snapshot-000040.pkl --seeds=0-35 --outdir=out --grid
      python generate.py --network=network-snapshot-000040.pkl --seeds=0-39 --outdir=out --grid=4x10 --format=jpg
      python generate.py --network=published.pkl --export=ours.safetensors
      python generate.py --network=network-snapshot-000040.pkl --seeds=0-9 --class=7 --trunc=0.7 --outdir=sevens
    """
    if chosen["export"]:
        export(chosen["network"], chosen["export"])
        return
    seeds: list[int] = chosen["seeds"]
    if not seeds or not chosen["outdir"]:
        raise ValueError("say which pictures and where to: --seeds=0-35 --outdir=out (or --export=FILE)")
    grid = grid_shape(chosen["grid"], len(seeds))
    generator = load(chosen["network"])
    request, renderer = make_request(generator, chosen), make_renderer(generator, chosen)
    from training.sampling.picture_files import write_pictures

    outdir = make_folder(chosen["outdir"])
    names = [f"seed{seed:04d}" for seed in seeds]
    write_pictures(renderer.seed_batches(seeds, request), names, outdir, chosen["extension"], grid and grid[1])


def export(network: str, target: str) -> None:
    """Rewrite a snapshot."""
    from training.checkpoint import export_snapshot

    export_snapshot(network, Path(target).expanduser())
    print(f"Written: {target}")


def grid_shape(text: str | None, count: int) -> tuple[int, int] | None:
    """Rows and columns of --grid, "auto" or "RxC"; None = no grid. Raises ValueError."""
    if text is None:
        return None
    if text == "auto":
        columns = math.ceil(math.sqrt(count))
        return math.ceil(count / columns), columns
    rows, columns = parse_grid(text)
    if rows * columns < count:
        raise ValueError(f"--grid={text} has room for {rows * columns} pictures, but there are {count} seeds")
    return rows, columns


def parse_grid(text: str) -> tuple[int, int]:
    """Rows and columns of "RxC". Raises ValueError."""
    rows, x, columns = text.lower().partition("x")
    if not (x and rows.isdecimal() and columns.isdecimal() and int(rows) * int(columns) >= 1):
        raise ValueError(f"--grid={text}: write it as rows x columns, such as 4x10, or --grid alone")
    return int(rows), int(columns)


if __name__ == "__main__":
    sys.exit(main())
