"""The commands of generate.py that lay out images of seeds: tables and animations."""

from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from sampling.commands.options import (
    class_option,
    command,
    cutoff_option,
    decimal_list,
    drawing_options,
    format_option,
    load,
    make_folder,
    make_renderer,
    make_request,
    network_option,
    number_list,
    options,
    outdir_option,
    output_folder,
    parse_grid,
    seeds_option,
    trunc_option,
)

MAX_FRAMES = 10_000  # from one seed to the next; an animation is made in memory
INTERPOLATION_PX = 256  # to which animations are enlarged unless --scale says otherwise


def output_file(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """The name of a file that can be written; looked at before any work."""
    output_folder(context, parameter, str(Path(value).parent))
    if Path(value).expanduser().is_dir():
        raise click.BadParameter(f"{value} is a folder; name a file")
    return value


@command("mix")
@network_option
@click.option("--rows", required=True, callback=number_list, metavar="LIST", help="Seeds of the rows.")
@click.option("--cols", required=True, callback=number_list, metavar="LIST", help="Seeds of the columns.")
@click.option(
    "--col-styles",
    "--styles",
    callback=number_list,
    metavar="LIST",
    help="Styles that come from the column, such as 0-3.  [default: the first half, which decides coarse things]",
)
@options(outdir_option, trunc_option, cutoff_option, class_option, format_option, drawing_options)
def mix_command(**chosen: Any) -> None:
    """Mix the styles of seeds, as a table.

    An image has its row's styles but for some, which are its column's.

    Writes the table mix.png, with the seeds' own pictures at its left and top, and single images: 85-55.png is row 85
    with styles of column 55, 85-85.png is seed 85 itself.

    \b
    Examples:
      python generate.py mix --network=network-snapshot-000040.pkl --rows=85,100,75 --cols=55,821 --outdir=out
      python generate.py mix --network=network-snapshot-000040.pkl --rows=0-3 --cols=4-7 --col-styles=4-7 --outdir=out
    """
    generator = load(chosen["network"])
    request, renderer = make_request(generator, chosen), make_renderer(generator, chosen)
    from sampling.mixing import check_col_styles, write_mixing_table
    from sampling.tables import table_path

    col_styles = check_col_styles(chosen["col_styles"], generator.num_ws)
    size = len(chosen["rows"]) + 1, len(chosen["cols"]) + 1
    path = table_path(make_folder(chosen["outdir"]), f"mix.{chosen['extension']}", generator, *size)
    write_mixing_table(renderer, chosen["rows"], chosen["cols"], col_styles, request, path)


@command("truncation")
@options(network_option, seeds_option)
@click.option(
    "--psi",
    "psis",
    default="-1,-0.5,0,0.5,0.7,1",
    callback=decimal_list,
    metavar="LIST",
    help="Truncations, one per column: 1 = as trained, 0 = the mean image, below 0 = the opposite.",
)
@options(outdir_option, cutoff_option, class_option, format_option, drawing_options)
def truncation_command(**chosen: Any) -> None:
    """Show what truncation does, as a table.

    A row is a seed, a column a value of psi.

    \b
    Example:
      python generate.py truncation --network=network-snapshot-000040.pkl --seeds=0-5 --psi=0,0.5,0.7,1 --outdir=out
    """
    generator = load(chosen["network"])
    request, renderer = make_request(generator, chosen | {"trunc_cutoff": None}), make_renderer(generator, chosen)
    from sampling.styles import styles_in_batches
    from sampling.tables import draw, save_table, table_path, truncation_sweep

    size = len(chosen["seeds"]), len(chosen["psis"])
    path = table_path(make_folder(chosen["outdir"]), f"truncation.{chosen['extension']}", generator, *size)
    ws = styles_in_batches(generator, chosen["seeds"], request, renderer.batch)
    table = truncation_sweep(generator, ws, chosen["psis"], chosen["trunc_cutoff"])
    save_table(path, draw(renderer, table, chosen["seeds"]))


@command("classes")
@options(network_option, seeds_option)
@click.option("--classes", metavar="LIST", help="Classes by number or name, such as 0-3,7 or cat,dog.  [default: all]")
@options(outdir_option, trunc_option, cutoff_option, format_option, drawing_options)
def classes_command(**chosen: Any) -> None:
    """Show the classes, as a table.

    A row is a seed, a column a class.

    \b
    Example:
      python generate.py classes --network=network-snapshot-000040.pkl --seeds=0-7 --outdir=out
    """
    generator = load(chosen["network"])
    request, renderer = make_request(generator, chosen), make_renderer(generator, chosen)
    from sampling.classes import find_classes
    from sampling.tables import class_grid, draw, save_table, table_path

    classes = find_classes(generator, chosen["classes"])
    size = len(chosen["seeds"]), len(classes)
    path = table_path(make_folder(chosen["outdir"]), f"classes.{chosen['extension']}", generator, *size)
    table = class_grid(generator, chosen["seeds"], classes, request, renderer.batch)
    save_table(path, draw(renderer, table, chosen["seeds"]))


@command("interpolate")
@options(network_option, seeds_option)
@click.option(
    "--out",
    default="interpolation.webp",
    callback=output_file,
    metavar="FILE",
    help="The animation: .webp (lossless), .gif or .mp4 (ffmpeg).",
)
@click.option(
    "--frames", default=24, type=click.IntRange(1, MAX_FRAMES), metavar="N", help="Frames from one seed to the next."
)
@click.option("--fps", default=24, type=click.IntRange(1), metavar="N", help="Frames a second.")
@click.option("--loop", is_flag=True, help="Go from the last seed back to the first.")
@click.option(
    "--space", default="z", type=click.Choice(["z", "w"]), help="z = latents, on the sphere; w = styles, straight."
)
@click.option(
    "--grid", default="1x1", metavar="RxC", help="Several animations side by side, which share out the seeds."
)
@click.option(
    "--scale",
    type=click.IntRange(1),
    metavar="N",
    help=f"Show a pixel as NxN.  [default: so that the larger side is about {INTERPOLATION_PX}]",
)
@options(trunc_option, cutoff_option, class_option, drawing_options)
def interpolate_command(**chosen: Any) -> None:
    """Go from seed to seed, as an animation that repeats.

    At each seed it shows the image of that seed. Where seeds have different classes, z blends the classes' embeddings
    on the way, and w the styles; --class gives all the same.

    \b
    Examples:
      python generate.py interpolate --network=network-snapshot-000040.pkl --seeds=0-5 --loop --out=walk.webp
      python generate.py interpolate --network=network-snapshot-000040.pkl --seeds=0-23 --grid=2x3 --out=walks.mp4
    """
    from dnnlib.images.animation import check_animation, enlarged, write_animation

    rows, columns = parse_grid(chosen["grid"])
    generator = load(chosen["network"])
    height, width = generator.img_height * rows, generator.img_width * columns
    scale = chosen["scale"] or max(INTERPOLATION_PX // max(height, width), 1)
    path = Path(chosen["out"]).expanduser()
    check_animation(path, chosen["fps"], width * scale, height * scale)
    request, renderer = make_request(generator, chosen), make_renderer(generator, chosen)
    from sampling.interpolation import Way, frames, split_seeds, timeline

    ways = [Way(generator, seeds, request, chosen["space"]) for seeds in split_seeds(chosen["seeds"], rows * columns)]
    moments = timeline(len(ways[0].z), chosen["frames"], chosen["loop"])
    make_folder(str(path.parent))
    made = tqdm(frames(renderer, ways, moments, chosen["seeds"][0], columns), total=len(moments), disable=None)
    write_animation(path, (enlarged(pixels, scale) for pixels in made), chosen["fps"])
    print(f"{len(moments)} frames, {len(moments) / chosen['fps']:.1f} seconds: {path}")
