"""Generate images from a network snapshot."""

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnnlib.command_line import SETTINGS, one_line_errors
from sampling.commands import image_commands as image_commands
from sampling.commands import network_commands
from sampling.commands.options import (
    COMPILE_FROM,
    NETWORK_HELP,
    batch_option,
    check_folder,
    class_option,
    cutoff_option,
    debug_option,
    format_option,
    load,
    make_folder,
    make_renderer,
    make_request,
    noise_mode_option,
    number_list,
    options,
    output_folder,
    parse_grid,
    trunc_option,
)
from training.config import COMPILE_CHOICES, PRECISIONS

if TYPE_CHECKING:
    from torch import Tensor

COMMANDS = (
    image_commands.mix_command,
    image_commands.truncation_command,
    image_commands.classes_command,
    image_commands.interpolate_command,
    network_commands.attention_command,
    network_commands.directions_command,
    network_commands.project_command,
    network_commands.nearest_command,
)


@click.group(
    invoke_without_command=True,
    commands={command.name: command for command in COMMANDS if command.name},
    subcommand_metavar="",
    context_settings=SETTINGS,
)
@click.option("--network", metavar="FILE", help=f"{NETWORK_HELP}  [required]")  # not where a command is named
@click.option("--ema", type=float, metavar="KIMG", help="Half-life of the averaged generator.  [default: the first]")
@click.option("--seeds", callback=number_list, metavar="LIST", help="Seeds, such as 0-35 or 1,5,100-105.")
@click.option(
    "--w", "--projected-w", "styles_file", metavar="FILE", help="Styles instead of seeds: array w of a .npz file."
)
@click.option(
    "--outdir",
    callback=output_folder,
    metavar="DIR",
    help="Where the images go: seed0000.png, ...; of --w w0000.png, ...",
)
@options(trunc_option, class_option, noise_mode_option, cutoff_option)
@click.option(
    "--grid", is_flag=False, flag_value="auto", metavar="[RxC]", help="Also write them side by side, R rows of C."
)
@click.option("--save-w", is_flag=True, help="Also write the seeds' styles: w.npz, for --w.")
@options(format_option, batch_option)
@click.option(
    "--precision",
    default="fp32",
    type=click.Choice(PRECISIONS),
    help="Of the large products; fp32 gives the published images.",
)
@click.option(
    "--compile",
    default="auto",
    type=click.Choice(COMPILE_CHOICES),
    help=f"Compile the network: auto = on a GPU, from {COMPILE_FROM} images on.",
)
@click.option("--export", metavar="FILE", help="Rewrite the snapshot as .pkl of this program or as .safetensors.")
@debug_option
@click.pass_context
def main(context: click.Context, **chosen: Any) -> None:
    """Generate images from a network snapshot; the same seed gives the same image every time.

    \b
    Examples:
      python generate.py --network=network-snapshot-000040.pkl --seeds=0-35 --outdir=out --grid
      python generate.py --network=network-snapshot-000040.pkl --seeds=0-39 --outdir=out --grid=4x10 --format=jpg
      python generate.py --network=published.pkl --export=ours.safetensors
      python generate.py --network=network-snapshot-000040.pkl --seeds=0-9 --class=7 --trunc=0.7 --outdir=sevens
      python generate.py --network=network-snapshot-000040.pkl --w=out/w.npz --outdir=again
      python generate.py mix --network=network-snapshot-000040.pkl --rows=85,100 --cols=55,821 --outdir=out
    """
    if context.invoked_subcommand is None:
        if chosen["network"] is None:
            raise click.MissingParameter(ctx=context, param_hint="'--network'", param_type="option")
        with one_line_errors(chosen["debug"]):
            export(chosen) if chosen["export"] else write_chosen(chosen)
    elif any(context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE for name in chosen):
        line = f"{context.command_path} {context.invoked_subcommand}"
        raise click.UsageError(f"the command comes first, then all options: {line} --network=FILE ...", context)


def write_chosen(chosen: dict[str, Any]) -> None:
    """Write the images that the options name. Raises ValueError, OSError."""
    check_sources(chosen)
    from sampling.image_files import write_images

    if chosen["styles_file"]:
        batches, names, columns = images_of_styles(chosen)
    else:
        batches, names, columns = images_of_seeds(chosen)
    write_images(batches, names, make_folder(chosen["outdir"]), chosen["extension"], columns)


def check_sources(chosen: dict[str, Any]) -> None:
    """Raise ValueError unless it is clear which images are wanted and where to."""
    if not (chosen["seeds"] or chosen["styles_file"]) or not chosen["outdir"]:
        raise ValueError("say which images and where to: --seeds=0-35 --outdir=out (or --export=FILE)")
    if chosen["styles_file"]:
        meant = {"--seeds": chosen["seeds"], "--class": chosen["class_name"], "--save-w": chosen["save_w"]}
        if extra := [name for name, value in meant.items() if value]:
            raise ValueError(f"--w={chosen['styles_file']} says which images: leave out {', '.join(extra)}")


def images_of_seeds(chosen: dict[str, Any]) -> "tuple[Iterable[Tensor], list[str], int | None]":
    """The images of --seeds in batches, their names, and the columns of their grid; writes their styles if asked to."""
    from sampling.style_file import save_styles
    from sampling.styles import styles_in_batches
    from sampling.tables import table_path

    seeds = list(dict.fromkeys(chosen["seeds"]))  # a seed has one file
    grid = grid_shape(chosen["grid"], len(seeds))
    generator = load(chosen["network"], chosen["ema"])
    if grid:
        table_path(Path(chosen["outdir"]), f"grid.{chosen['extension']}", generator, *grid)
    request, renderer = make_request(generator, chosen), make_renderer(generator, chosen, len(seeds))
    if chosen["save_w"]:
        path = make_folder(chosen["outdir"]) / "w.npz"
        save_styles(path, styles_in_batches(generator, seeds, request, renderer.batch), seeds)
        print(f"Styles: {path}")
    return renderer.seed_batches(seeds, request), [f"seed{seed:04d}" for seed in seeds], grid and grid[1]


def images_of_styles(chosen: dict[str, Any]) -> "tuple[Iterable[Tensor], list[str], int | None]":
    """The images of --w in batches, their names, and the columns of their grid."""
    from sampling.style_file import load_styles
    from sampling.tables import table_path
    from training.networks.mapping import truncate

    generator = load(chosen["network"], chosen["ema"])
    ws, noise_seeds = load_styles(chosen["styles_file"], generator)
    grid = grid_shape(chosen["grid"], len(ws))
    if grid:
        table_path(Path(chosen["outdir"]), f"grid.{chosen['extension']}", generator, *grid)
    ws = truncate(ws, generator.mapping_network.w_avg, chosen["trunc"], chosen["trunc_cutoff"])
    renderer = make_renderer(generator, chosen, len(ws))
    return renderer.batches(ws, noise_seeds), [f"w{index:04d}" for index in range(len(ws))], grid and grid[1]


def export(chosen: dict[str, Any]) -> None:
    """Rewrite a snapshot as --export says; raises ValueError where images are asked for too."""
    from training.checkpoint.snapshot import export_snapshot

    target = Path(chosen["export"]).expanduser()
    meant = {"--seeds": "seeds", "--w": "styles_file", "--outdir": "outdir", "--grid": "grid", "--save-w": "save_w"}
    if extra := [name for name, key in meant.items() if chosen[key]]:
        raise ValueError(f"--export={target} writes a network and no images: leave out {', '.join(extra)}")
    check_folder(target.parent)
    make_folder(str(target.parent))
    export_snapshot(chosen["network"], target)
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
        raise ValueError(f"--grid={text} has room for {rows * columns} images, but there are {count}")
    return rows, columns


if __name__ == "__main__":
    sys.exit(main())
