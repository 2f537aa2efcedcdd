"""The commands of generate.py that lay out images of seeds: tables and animations."""

from typing import Any

import click
from tqdm import tqdm

from sampling.commands import options
from sampling.commands.options import command, make_folder

MAX_FRAMES = 10_000  # from one seed to the next; an animation is made in memory
INTERPOLATION_PX = 256  # target size of the larger side of animations


@command("mix")
@options.network
@click.option("--rows", required=True, callback=options.number_list, metavar="LIST", help="Seeds of the rows.")
@click.option("--cols", required=True, callback=options.number_list, metavar="LIST", help="Seeds of the columns.")
@click.option(
    "--col-styles",
    "--styles",
    callback=options.number_list,
    metavar="LIST",
    help="Styles taken from the column, such as 0-3.  [default: the first half, the coarse ones]",
)
@options.outdir
@options.styles
@options.image_format
@options.drawing
def mix_command(**chosen: Any) -> None:
    """Mix the styles of two lists of seeds: a table.

    An image has the styles of its row's seed, some of them replaced by those of its column's seed.

    Saves the table mix.png, with the seeds' own images at its left and top, and single images: 85-55.png is row 85 with
    styles of column 55, 85-85.png is seed 85 itself.

    \b
    Examples:
      python generate.py mix --network=network-snapshot-000040.pkl --rows=85,100,75 --cols=55,821 --outdir=out
      python generate.py mix --network=network-snapshot-000040.pkl --rows=0-3 --cols=4-7 --col-styles=4-7 --outdir=out
    """
    from sampling.tables import check_col_styles, write_mixing_table

    generator, request, renderer = options.open_network(chosen)
    col_styles = check_col_styles(chosen["col_styles"], generator.num_ws)
    path = options.table_file("mix", generator, chosen, len(chosen["rows"]) + 1, len(chosen["cols"]) + 1)
    write_mixing_table(renderer, chosen["rows"], chosen["cols"], col_styles, request, path)


@command("truncation")
@options.network_seeds
@click.option(
    "--psi",
    "psis",
    default="-1,-0.5,0,0.5,0.7,1",
    callback=options.decimal_list,
    metavar="LIST",
    help="Truncation psi per column: 1 = as trained, 0 = the mean image, negative = beyond it.",
)
@options.outdir
@options.cutoff
@options.labels
@options.image_format
@options.drawing
def truncation_command(**chosen: Any) -> None:
    """Truncate the styles of seeds: a table with a row per seed and a column per psi.

    \b
    Example:
      python generate.py truncation --network=network-snapshot-000040.pkl --seeds=0-5 --psi=0,0.5,0.7,1 --outdir=out
    """
    from sampling.tables import draw, save_table, truncation_sweep

    generator, request, renderer = options.open_network(chosen | {"trunc_cutoff": None})
    path = options.table_file("truncation", generator, chosen, len(chosen["seeds"]), len(chosen["psis"]))
    ws = renderer.styles(chosen["seeds"], request)
    table = truncation_sweep(generator, ws, chosen["psis"], chosen["trunc_cutoff"])
    save_table(path, draw(renderer, table, chosen["seeds"]))


@command("classes")
@options.network_seeds
@click.option("--classes", metavar="LIST", help="Classes by number or name, such as 0-3,7 or cat,dog.  [default: all]")
@options.outdir
@options.trunc
@options.cutoff
@options.image_format
@options.drawing
def classes_command(**chosen: Any) -> None:
    """Generate seeds in each class: a table with a row per seed and a column per class.

    \b
    Example:
      python generate.py classes --network=network-snapshot-000040.pkl --seeds=0-7 --outdir=out
    """
    from sampling.labels import find_classes
    from sampling.renderer import Renderer, Request, load
    from sampling.tables import class_grid, draw, save_table

    generator = load(chosen["network"], chosen["ema"])
    classes = find_classes(generator, chosen["classes"])
    request = Request(None, chosen["trunc"], chosen["trunc_cutoff"])
    renderer = Renderer(generator, chosen["noise_mode"], chosen["batch"])
    path = options.table_file("classes", generator, chosen, len(chosen["seeds"]), len(classes))
    save_table(path, draw(renderer, class_grid(renderer, chosen["seeds"], classes, request), chosen["seeds"]))


@command("interpolate")
@options.network_seeds
@click.option(
    "--out",
    default="interpolation.webp",
    callback=options.output_file,
    metavar="FILE",
    help="The animation: .webp (lossless), .gif or .mp4 (needs ffmpeg).",
)
@click.option(
    "--frames", default=24, type=click.IntRange(1, MAX_FRAMES), metavar="N", help="Frames from one seed to the next."
)
@click.option("--fps", default=24, type=click.IntRange(1, 1000), metavar="N", help="Frames per second.")
@click.option("--loop", is_flag=True, help="Return from the last seed to the first.")
@click.option("--space", default="z", type=click.Choice(["z", "w"]), help="z = spherical, latents; w = linear, styles.")
@click.option(
    "--grid", default="1x1", metavar="RxC", help="Several animations side by side; the seeds are split among them."
)
@click.option(
    "--scale",
    type=click.IntRange(1, options.MAX_COUNT),
    metavar="N",
    help=f"Enlarge each pixel to NxN.  [default: to about {INTERPOLATION_PX} px]",
)
@options.styles
@options.drawing
def interpolate_command(**chosen: Any) -> None:
    """Save an animation that interpolates from seed to seed.

    The frame at each seed is the image of that seed. Between seeds of different classes, z interpolates the labels and w
    the styles; --class sets one class for all.

    \b
    Examples:
      python generate.py interpolate --network=network-snapshot-000040.pkl --seeds=0-5 --loop --out=walk.webp
      python generate.py interpolate --network=network-snapshot-000040.pkl --seeds=0-23 --grid=2x3 --out=walks.mp4
    """
    from dnnlib.images.animation import check_animation, enlarged, write_animation
    from sampling.interpolation import Way, frames, split_seeds, timeline
    from sampling.output import naming

    rows, columns = options.parse_grid(chosen["grid"])
    generator, request, renderer = options.open_network(chosen)
    height, width = generator.img_height * rows, generator.img_width * columns
    scale = chosen["scale"] or max(INTERPOLATION_PX // max(height, width), 1)
    path = chosen["out"]
    check_animation(path, chosen["fps"], width * scale, height * scale)
    ways = [Way(generator, seeds, request, chosen["space"]) for seeds in split_seeds(chosen["seeds"], rows * columns)]
    moments = timeline(len(ways[0].z), chosen["frames"], chosen["loop"])
    make_folder(generator, path.parent, "--out")
    made = tqdm(frames(renderer, ways, moments, chosen["seeds"][0], columns), total=len(moments), disable=None)
    with naming(path):
        write_animation(path, (enlarged(pixels, scale) for pixels in made), chosen["fps"])
    print(f"{len(moments)} frames, {len(moments) / chosen['fps']:.1f} seconds: {path}")
