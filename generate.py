"""Generate pictures from a network snapshot."""

import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from tqdm import tqdm

from dnnlib.command_line import SETTINGS, Script
from dnnlib.text import parse_int_list, parse_number_list
from training.config import COMPILE_CHOICES, PRECISIONS

if TYPE_CHECKING:
    from torch import Tensor

    from training.networks.generator import Generator
    from training.sampling.renderer import Renderer
    from training.sampling.styles import Request

NOISE_MODES = ("const", "random", "none")
COMPILE_FROM = 1000  # pictures; compiling takes longer than fewer
INTERPOLATION_PX = 256  # to which animations are enlarged unless --scale says otherwise
Function = TypeVar("Function", bound=Callable[..., Any])

main = Script(context_settings=SETTINGS)


def number_list(context: click.Context, parameter: click.Parameter, value: str | None) -> list[int] | None:
    """Numbers from ranges and lists, such as 0-35,100; None = not given."""
    try:
        return None if value is None else parse_int_list(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def decimal_list(context: click.Context, parameter: click.Parameter, value: str) -> list[float]:
    """Numbers such as -1,0,0.5."""
    try:
        return parse_number_list(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


# What several commands take.
network_option = click.option(
    "--network", required=True, metavar="FILE", help="Network snapshot, network-snapshot-*.pkl."
)
seeds_option = click.option(
    "--seeds", required=True, callback=number_list, metavar="LIST", help="Seeds, such as 0-5 or 1,5,100-105."
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


drawing_options = options(noise_mode_option, batch_option, debug_option)


def load(network: str) -> "Generator":
    """The generator of a snapshot, on a GPU if there is one."""
    import torch

    from training.checkpoint import load_generator

    return load_generator(network, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def make_request(generator: "Generator", chosen: dict[str, Any]) -> "Request":
    """How --class, --trunc and --trunc-cutoff have styles made of seeds."""
    from training.sampling.classes import find_class
    from training.sampling.styles import Request

    class_index = find_class(generator, chosen.get("class_name"))
    return Request(class_index, chosen.get("trunc", 1.0), chosen["trunc_cutoff"])


def make_renderer(generator: "Generator", chosen: dict[str, Any], count: int = 0) -> "Renderer":
    """What makes `count` pictures of styles as --noise-mode, --batch, --precision and --compile say."""
    from training.compilation import resolve_compile
    from training.config import PerformanceConfig
    from training.sampling.renderer import Renderer
    from training.sampling.styles import device_of

    compiling = chosen.get("compile", "0")
    if compiling == "auto" and count < COMPILE_FROM:
        compiling = "0"
    if reason := resolve_compile(compiling, device_of(generator))[1]:
        print(reason)
    performance = PerformanceConfig(precision=chosen.get("precision", "fp32"), compile=compiling)
    return Renderer(generator, chosen["noise_mode"], chosen["batch"], performance)


def make_folder(outdir: str) -> Path:
    """The folder of --outdir, which is made unless it is there."""
    folder = Path(outdir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@main.own_command
@network_option
@click.option("--seeds", callback=number_list, metavar="LIST", help="Seeds, such as 0-35 or 1,5,100-105.")
@click.option(
    "--w", "--projected-w", "styles_file", metavar="FILE", help="Styles instead of seeds: array w of a .npz file."
)
@click.option("--outdir", metavar="DIR", help="Where the pictures go: seed0000.png, ...; of --w w0000.png, ...")
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
    help="Of the large products; fp32 gives the published pictures.",
)
@click.option(
    "--compile",
    default="auto",
    type=click.Choice(COMPILE_CHOICES),
    help=f"Compile the network: auto = on a GPU, from {COMPILE_FROM} pictures on.",
)
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
      python generate.py --network=network-snapshot-000040.pkl --w=out/w.npz --outdir=again
      python generate.py mix --network=network-snapshot-000040.pkl --rows=85,100 --cols=55,821 --outdir=out
    """
    if chosen["export"]:
        export(chosen["network"], chosen["export"])
        return
    check_sources(chosen)
    from training.sampling.picture_files import write_pictures

    if chosen["styles_file"]:
        batches, names, columns = pictures_of_styles(chosen)
    else:
        batches, names, columns = pictures_of_seeds(chosen)
    write_pictures(batches, names, make_folder(chosen["outdir"]), chosen["extension"], columns)


def check_sources(chosen: dict[str, Any]) -> None:
    """Raise ValueError unless it is clear which pictures are wanted and where to."""
    if not (chosen["seeds"] or chosen["styles_file"]) or not chosen["outdir"]:
        raise ValueError("say which pictures and where to: --seeds=0-35 --outdir=out (or --export=FILE)")
    if chosen["styles_file"]:
        meant = {"--seeds": chosen["seeds"], "--class": chosen["class_name"], "--save-w": chosen["save_w"]}
        if extra := [name for name, value in meant.items() if value]:
            raise ValueError(f"--w={chosen['styles_file']} says which pictures: leave out {', '.join(extra)}")


def pictures_of_seeds(chosen: dict[str, Any]) -> "tuple[Iterable[Tensor], list[str], int | None]":
    """The pictures of --seeds in batches, their names, and the columns of their grid; writes their styles if asked to."""
    from training.sampling.style_file import save_styles
    from training.sampling.styles import styles_in_batches

    seeds: list[int] = chosen["seeds"]
    grid = grid_shape(chosen["grid"], len(seeds))
    generator = load(chosen["network"])
    request, renderer = make_request(generator, chosen), make_renderer(generator, chosen, len(seeds))
    if chosen["save_w"]:
        path = make_folder(chosen["outdir"]) / "w.npz"
        save_styles(path, styles_in_batches(generator, seeds, request, renderer.batch), seeds)
        print(f"Styles: {path}")
    return renderer.seed_batches(seeds, request), [f"seed{seed:04d}" for seed in seeds], grid and grid[1]


def pictures_of_styles(chosen: dict[str, Any]) -> "tuple[Iterable[Tensor], list[str], int | None]":
    """The pictures of --w in batches, their names, and the columns of their grid."""
    from training.networks.mapping import truncate
    from training.sampling.style_file import load_styles

    generator = load(chosen["network"])
    ws = load_styles(chosen["styles_file"], generator)
    grid = grid_shape(chosen["grid"], len(ws))
    ws = truncate(ws, generator.mapping_network.w_avg, chosen["trunc"], chosen["trunc_cutoff"])
    renderer = make_renderer(generator, chosen, len(ws))
    return renderer.batches(ws, range(len(ws))), [f"w{index:04d}" for index in range(len(ws))], grid and grid[1]


def export(network: str, target: str) -> None:
    """Rewrite a snapshot."""
    from training.checkpoint import export_snapshot

    export_snapshot(network, Path(target).expanduser())
    print(f"Written: {target}")


@main.command("mix")
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

    A picture has its row's styles but for some, which are its column's.

    Writes the table mix.png, with the seeds' own pictures at its left and top, and single pictures: 85-55.png is row 85
    with styles of column 55, 85-85.png is seed 85 itself.

    \b
    Examples:
      python generate.py mix --network=network-snapshot-000040.pkl --rows=85,100,75 --cols=55,821 --outdir=out
      python generate.py mix --network=network-snapshot-000040.pkl --rows=0-3 --cols=4-7 --col-styles=4-7 --outdir=out
    """
    generator = load(chosen["network"])
    request, renderer = make_request(generator, chosen), make_renderer(generator, chosen)
    from training.sampling.mixing import check_col_styles, write_mixing_table

    col_styles = check_col_styles(chosen["col_styles"], generator.num_ws)
    outdir = make_folder(chosen["outdir"])
    write_mixing_table(renderer, chosen["rows"], chosen["cols"], col_styles, request, outdir, chosen["extension"])


@main.command("truncation")
@options(network_option, seeds_option)
@click.option(
    "--psi",
    "psis",
    default="-1,-0.5,0,0.5,0.7,1",
    callback=decimal_list,
    metavar="LIST",
    help="Truncations, one a column: 1 = as trained, 0 = the mean picture, below 0 = the opposite.",
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
    from training.sampling.styles import styles_in_batches
    from training.sampling.tables import draw, save_table, truncation_sweep

    ws = styles_in_batches(generator, chosen["seeds"], request, renderer.batch)
    table = truncation_sweep(generator, ws, chosen["psis"], chosen["trunc_cutoff"])
    drawn = draw(renderer, table, chosen["seeds"])
    save_table(make_folder(chosen["outdir"]) / f"truncation.{chosen['extension']}", drawn)


@main.command("classes")
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
    from training.sampling.classes import find_classes
    from training.sampling.tables import class_grid, draw, save_table

    classes = find_classes(generator, chosen["classes"])
    table = class_grid(generator, chosen["seeds"], classes, request, renderer.batch)
    drawn = draw(renderer, table, chosen["seeds"])
    save_table(make_folder(chosen["outdir"]) / f"classes.{chosen['extension']}", drawn)


@main.command("interpolate")
@options(network_option, seeds_option)
@click.option(
    "--out",
    default="interpolation.webp",
    metavar="FILE",
    help="The animation: .webp (lossless), .gif or .mp4 (ffmpeg).",
)
@click.option("--frames", default=24, type=click.IntRange(1), metavar="N", help="Frames from one seed to the next.")
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

    At each seed it shows the picture of that seed. Where seeds have different classes, z blends the classes' embeddings
    on the way, and w the styles; --class gives all the same.

    \b
    Examples:
      python generate.py interpolate --network=network-snapshot-000040.pkl --seeds=0-5 --loop --out=walk.webp
      python generate.py interpolate --network=network-snapshot-000040.pkl --seeds=0-23 --grid=2x3 --out=walks.mp4
    """
    from dnnlib.animation import check_animation, enlarged, write_animation

    rows, columns = parse_grid(chosen["grid"])
    generator = load(chosen["network"])
    height, width = generator.img_height * rows, generator.img_width * columns
    scale = chosen["scale"] or max(INTERPOLATION_PX // max(height, width), 1)
    path = Path(chosen["out"]).expanduser()
    check_animation(path, chosen["fps"], width * scale, height * scale)
    request, renderer = make_request(generator, chosen), make_renderer(generator, chosen)
    from training.sampling.interpolation import Way, frames, split_seeds, timeline

    ways = [Way(generator, seeds, request, chosen["space"]) for seeds in split_seeds(chosen["seeds"], rows * columns)]
    moments = timeline(len(ways[0].z), chosen["frames"], chosen["loop"])
    path.parent.mkdir(parents=True, exist_ok=True)
    made = tqdm(frames(renderer, ways, moments, chosen["seeds"][0], columns), total=len(moments), disable=None)
    write_animation(path, (enlarged(pixels, scale) for pixels in made), chosen["fps"])
    print(f"{len(moments)} frames, {len(moments) / chosen['fps']:.1f} seconds: {path}")


def chosen_layers(numbers: list[int] | None, count: int) -> list[int]:
    """The numbers of --layers, or all. Raises ValueError for one that is too large."""
    if numbers and max(numbers) >= count:
        raise ValueError(f"--layers: there is no {max(numbers)} in this network; choose from 0-{count - 1}")
    return numbers or list(range(count))


@main.command("attention")
@options(network_option, seeds_option, outdir_option)
@click.option(
    "--points", metavar="LIST", help="Query points 'y,x;y,x', px from the top left.  [default: the middle and 3 others]"
)
@click.option("--layers", callback=number_list, metavar="LIST", help="Encoder layers, from 0.  [default: all]")
@options(trunc_option, cutoff_option, class_option, debug_option)
def attention_command(**chosen: Any) -> None:
    """Show what points of a picture attend to, in each layer and head.

    Writes an overview, attention0003.png, and attention0003-layer00.png, ... for each layer. The query point has a
    frame; the brighter a place, the more of it is mixed in there. "3.2x" says that the brightest place gets 3.2 times
    its even share.

    \b
    Examples:
      python generate.py attention --network=network-snapshot-000040.pkl --seeds=3 --outdir=out
      python generate.py attention --network=network-snapshot-000040.pkl --seeds=3 --points='16,16;4,20' --outdir=out
    """
    generator = load(chosen["network"])
    from training.sampling.attention_sheets import parse_points, write_attention
    from training.sampling.styles import styles

    points = parse_points(chosen["points"], generator.img_height, generator.img_width)
    layers = chosen_layers(chosen["layers"], generator.num_ws - 1)
    request, outdir = make_request(generator, chosen), make_folder(chosen["outdir"])
    for seed in chosen["seeds"]:
        name = f"attention{seed:04d}"
        write_attention(generator, styles(generator, [seed], request), name, points, layers, "const", outdir)


@main.command("directions")
@options(network_option, seeds_option, outdir_option)
@click.option("--layers", callback=number_list, metavar="LIST", help="Styles that are moved, from 0.  [default: all]")
@click.option("--count", default=5, type=click.IntRange(1), metavar="N", help="Directions, those of most effect first.")
@click.option(
    "--strength", default=3.0, metavar="S", help="Farthest step, in standard deviations of w along the direction."
)
@click.option("--steps", default=7, type=click.IntRange(3), metavar="N", help="Pictures a strip, an odd number.")
@click.option("--directions", "file", metavar="FILE", help="Use the directions.npz of an earlier call.")
@options(trunc_option, cutoff_option, class_option, drawing_options)
def directions_command(**chosen: Any) -> None:
    """Find directions of W that change pictures most, and show them.

    They follow from the weights alone (SeFa, arXiv 2007.06600). Writes directions-00.png, ..., one row a seed, with the
    seed's own picture in the middle; and directions.npz.

    \b
    Examples:
      python generate.py directions --network=network-snapshot-000040.pkl --seeds=0-5 --outdir=out
      python generate.py directions --network=network-snapshot-000040.pkl --seeds=0-5 --layers=0-2 --count=8 --outdir=out
      python generate.py directions --network=other.pkl --directions=out/directions.npz --seeds=0-5 --outdir=out2
    """
    generator = load(chosen["network"])
    from training.sampling.direction_strips import choose_directions, write_strips
    from training.sampling.directions import steps

    layers = chosen_layers(chosen["layers"], generator.num_ws)
    found = choose_directions(generator, chosen["file"], layers, chosen["count"])
    renderer = make_renderer(generator, chosen)
    request, outdir = make_request(generator, chosen), make_folder(chosen["outdir"])
    amounts = steps(chosen["strength"], chosen["steps"])
    write_strips(renderer, found, chosen["seeds"], request, amounts, outdir)


@main.command("project")
@network_option
@click.option("--target", "targets", required=True, multiple=True, metavar="FILE", help="A picture; may be repeated.")
@outdir_option
@click.option("--space", default="w", type=click.Choice(["w", "w+"]), help="w+ = a style of its own for each layer.")
@click.option("--starts", default=3, type=click.IntRange(1), metavar="N", help="Descents at once; the best is kept.")
@click.option("--steps", default=300, type=click.IntRange(1), metavar="N", help="Steps of each descent.")
@click.option("--candidates", default=1000, type=click.IntRange(1), metavar="N", help="Random w tried for the starts.")
@click.option("--class", "class_name", metavar="CLASS", help="Class to begin with.  [default: whichever is closest]")
@click.option("--lpips", metavar="FILE", help="Compare by LPIPS; the file has its weights for VGG16's channels.")
@click.option("--animation", is_flag=True, help="Also show the way: proj00.webp, ...")
@click.option("--seed", default=0, metavar="N", help="Seed of the candidates.")
@debug_option
def project_command(**chosen: Any) -> None:
    """Find the styles whose picture comes closest to a given one.

    Pictures are compared by their pixels and by the features of the snapshot's own discriminator. Writes proj00.png,
    ..., the target and its projection, and projected_w.npz, which --w takes.

    \b
    Examples:
      python generate.py project --network=network-snapshot-000040.pkl --target=photo.png --outdir=out
      python generate.py project --network=network-snapshot-000040.pkl --target=a.png --target=b.png --outdir=out
    """
    generator = load(chosen["network"])
    from training.sampling.classes import find_class
    from training.sampling.projection_files import choose_embedding, project_files
    from training.sampling.projector import Projector, Search
    from training.sampling.target_picture import read_targets

    class_index = find_class(generator, chosen["class_name"])
    starts = {name: chosen[name] for name in ("starts", "candidates", "seed")}
    search = Search(num_steps=chosen["steps"], is_plus=chosen["space"] == "w+", class_index=class_index, **starts)
    targets = read_targets(chosen["targets"], generator)
    projector = Projector(generator, choose_embedding(chosen["network"], generator, chosen["lpips"]), search)
    project_files(projector, targets, chosen["targets"], make_folder(chosen["outdir"]), chosen["animation"])


@main.command("nearest")
@options(network_option, seeds_option, outdir_option)
@click.option("--data", metavar="PATH", help="Real pictures: zip or folder.  [default: the network's training set]")
@click.option("--count", default=5, type=click.IntRange(1), metavar="N", help="Nearest real pictures of each.")
@click.option(
    "--by", default="pixels", type=click.Choice(["pixels", "features"]), help="features = of the own discriminator."
)
@click.option("--mirror", type=bool, metavar="BOOL", help="Flipped real pictures too.  [default: as trained]")
@options(trunc_option, cutoff_option, class_option, drawing_options)
def nearest_command(**chosen: Any) -> None:
    """Show the training pictures nearest to generated ones: is the network memorising?

    Writes nearest.png: each row a generated picture, then its nearest real ones with their distances. Prints how far the
    nearest is, how far that one is from its own nearest other real picture, and the ratio: a copy has one far below 1.

    \b
    Examples:
      python generate.py nearest --network=network-snapshot-000040.pkl --seeds=0-7 --outdir=out
      python generate.py nearest --network=network-snapshot-000040.pkl --seeds=0-7 --by=features --outdir=out
    """
    generator = load(chosen["network"])
    from training.sampling.neighbour_files import choose_description, write_neighbours
    from training.sampling.real_neighbours import open_real

    dataset = open_real(chosen["network"], generator, chosen["data"], chosen["mirror"])
    renderer = make_renderer(generator, chosen)
    pictures = list(renderer.seed_batches(chosen["seeds"], make_request(generator, chosen)))
    names = [f"seed {seed}" for seed in chosen["seeds"]]
    description = choose_description(chosen["network"], generator, chosen["by"])
    write_neighbours(pictures, names, dataset, chosen["count"], description, make_folder(chosen["outdir"]))


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
