"""The commands of generate.py that analyse a network: attention, directions, projection, nearest images, explore."""

import errno
import socket
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from dnnlib.paths import user_path
from sampling.commands import options
from sampling.commands.options import command, make_folder, make_request

GRADIO = (6, 31)  # the oldest version that works


def chosen_layers(numbers: list[int] | None, count: int) -> list[int]:
    """The numbers of --layers, or all. Raises ValueError for one that is too large."""
    if numbers and max(numbers) >= count:
        raise ValueError(f"--layers: there is no {max(numbers)} in this network; choose from 0-{count - 1}")
    return sorted(set(numbers)) if numbers else list(range(count))


@command("attention")
@options.network_seeds
@options.outdir
@click.option(
    "--points", metavar="LIST", help="Query points 'y,x;y,x', px from the top left.  [default: the middle and 3 others]"
)
@click.option("--layers", callback=options.number_list, metavar="LIST", help="Encoder layers, from 0.  [default: all]")
@options.styles
@options.debug
def attention_command(**chosen: Any) -> None:
    """Show the attention of points of an image, in each layer and head.

    Saves an overview, attention0003.png, and a sheet per layer, attention0003-layer00.png, ... The query point has a
    frame; brighter places get more attention. "3.2x" is the peak, as a multiple of uniform attention.

    \b
    Examples:
      python generate.py attention --network=network-snapshot-000040.pkl --seeds=3 --outdir=out
      python generate.py attention --network=network-snapshot-000040.pkl --seeds=3 --points='16,16;4,20' --outdir=out
    """
    from sampling.attention_maps import encoder_layers, parse_points, write_attention
    from sampling.renderer import load, styles

    generator = load(chosen["network"], chosen["ema"])
    points = parse_points(chosen["points"], generator.img_height, generator.img_width)
    layers = chosen_layers(chosen["layers"], len(encoder_layers(generator)))
    request, outdir = make_request(generator, chosen), make_folder(generator, chosen["outdir"])
    for seed in chosen["seeds"]:
        ws = styles(generator, [seed], request)
        write_attention(generator, ws, f"attention{seed:04d}", points, layers, outdir)


@command("directions")
@options.network_seeds
@options.outdir
@click.option("--layers", callback=options.number_list, metavar="LIST", help="Styles to move, from 0.  [default: all]")
@click.option(
    "--count",
    type=click.IntRange(1, options.MAX_COUNT),
    metavar="N",
    help="Directions, by decreasing effect.  [default: 5]",
)
@click.option(
    "--strength",
    default=3.0,
    callback=options.bounded,
    metavar="S",
    help="Largest step, in standard deviations of w along the direction.",
)
@click.option("--steps", default=7, type=click.IntRange(3, 999), metavar="N", help="Images per row, an odd number.")
@click.option("--directions", "file", metavar="FILE", help="Apply the directions.npz of an earlier call.")
@options.styles
@options.drawing
def directions_command(**chosen: Any) -> None:
    """Find the directions of W that change images most.

    They follow from the weights alone (SeFa, arXiv 2007.06600). Saves directions-00.png, ..., with a row per seed and
    the seed's own image in the middle, and directions.npz.

    \b
    Examples:
      python generate.py directions --network=network-snapshot-000040.pkl --seeds=0-5 --outdir=out
      python generate.py directions --network=network-snapshot-000040.pkl --seeds=0-5 --layers=0-2 --count=8 --outdir=out
      python generate.py directions --network=other.pkl --directions=out/directions.npz --seeds=0-5 --outdir=out2
    """
    from sampling.directions import choose_directions, steps, write_strips

    if chosen["file"] and (chosen["layers"] or chosen["count"]):
        raise ValueError(f"--directions={chosen['file']} has its own layers and count: leave out --layers and --count")
    generator, request, renderer = options.open_network(chosen)
    layers = chosen_layers(chosen["layers"], generator.num_ws)
    labels = request.labels if generator.labels_are_vectors else None
    found = choose_directions(generator, chosen["file"], layers, chosen["count"] or 5, labels)
    amounts = steps(chosen["strength"], chosen["steps"])
    write_strips(renderer, found, chosen["seeds"], request, amounts, make_folder(generator, chosen["outdir"]))


@command("project")
@options.network
@click.option("--target", "targets", required=True, multiple=True, metavar="FILE", help="An image; can be repeated.")
@options.outdir
@click.option("--space", default="w", type=click.Choice(["w", "w+"]), help="w+ = one style per layer.")
@click.option(
    "--starts", default=3, type=click.IntRange(1, 999), metavar="N", help="Parallel descents; the best is kept."
)
@click.option(
    "--steps", "--num-steps", default=300, type=click.IntRange(1, 10**6), metavar="N", help="Steps per descent."
)
@click.option(
    "--candidates",
    default=1000,
    type=click.IntRange(1, 10**6),
    metavar="N",
    help="Number of random w among which the starts are chosen.",
)
@options.labels
@click.option("--lpips", metavar="FILE", help="Compare by LPIPS; FILE has its weights for VGG16's channels.")
@click.option("--animation", is_flag=True, help="Also save the optimization: proj00.webp, ...")
@click.option("--seed", default=0, type=click.IntRange(0, options.MAX_SEED), metavar="N", help="Seed of the random w.")
@options.debug
def project_command(**chosen: Any) -> None:
    """Find the styles whose image comes closest to a given one.

    The loss compares pixels and features of the snapshot's discriminator. Saves proj00.png, ..., the target beside its
    projection, and projected_w.npz, for --w.

    \b
    Examples:
      python generate.py project --network=network-snapshot-000040.pkl --target=photo.png --outdir=out
      python generate.py project --network=network-snapshot-000040.pkl --target=a.png --target=b.png --outdir=out
    """
    from dnnlib.archive.image_tree import data_set_around
    from sampling.labels import choose_labels
    from sampling.projection.projector import Projector, Search, choose_embedding, project_files
    from sampling.projection.target import read_target
    from sampling.renderer import load

    generator = load(chosen["network"], chosen["ema"])
    labels = choose_labels(generator, chosen["class_name"], chosen["label"])
    starts = {name: chosen[name] for name in ("starts", "candidates", "seed")}
    search = Search(num_steps=chosen["steps"], is_plus=chosen["space"] == "w+", labels=labels, **starts)
    targets = []
    for index, path in enumerate(chosen["targets"]):
        options.check_output(chosen["outdir"] / f"proj{index:02d}.png", "--outdir", path, "--target")
        if folder := data_set_around(user_path(path)):
            options.check_output(chosen["outdir"], "--outdir", str(folder), "the data set of --target")
        target, changes = read_target(path, generator)
        targets.append(target)
        if changes:
            print(f"{path}: {changes}")
    projector = Projector(generator, choose_embedding(chosen["network"], generator, chosen["lpips"]), search)
    project_files(projector, targets, chosen["targets"], make_folder(generator, chosen["outdir"]), chosen["animation"])


@command("nearest")
@options.network_seeds
@options.outdir
@click.option("--data", metavar="PATH", help="Real images: zip or folder.  [default: the training set]")
@click.option(
    "--count",
    default=5,
    type=click.IntRange(1, options.MAX_COUNT),
    metavar="N",
    help="Nearest real images per generated one.",
)
@click.option(
    "--by",
    default="pixels",
    type=click.Choice(["pixels", "features"]),
    help="What to compare; features = those of the snapshot's discriminator.",
)
@click.option("--mirror", type=bool, metavar="BOOL", help="Also compare flipped real images.  [default: as trained]")
@options.styles
@options.drawing
def nearest_command(**chosen: Any) -> None:
    """Find the training images nearest to generated ones: is the network memorising?

    Saves nearest.png, with each generated image, then its nearest real ones. Prints the distance to the nearest real
    image, the distance of that one to its own nearest real image, and their ratio, which is far below 1 for a copy.

    \b
    Examples:
      python generate.py nearest --network=network-snapshot-000040.pkl --seeds=0-7 --outdir=out
      python generate.py nearest --network=network-snapshot-000040.pkl --seeds=0-7 --by=features --outdir=out
    """
    from sampling.nearest import describe, open_real, write_neighbours

    generator, request, renderer = options.open_network(chosen)
    options.check_output(chosen["outdir"], "--outdir", chosen["data"], "--data")
    dataset = open_real(chosen["network"], generator, chosen["data"], chosen["mirror"])
    images = renderer.images(renderer.styles(chosen["seeds"], request), chosen["seeds"])
    names = [f"seed {seed}" for seed in chosen["seeds"]]
    description = describe(chosen["network"], generator, chosen["by"])
    write_neighbours(images, names, dataset, chosen["count"], description, make_folder(generator, chosen["outdir"]))


@command("explore")
@options.network
@click.option("--port", default=7860, type=click.IntRange(1, 65535), metavar="N", help="Port of the page.")
@click.option(
    "--host", default="127.0.0.1", metavar="ADDRESS", help="Address to listen on; 0.0.0.0 = the whole network."
)
@click.option("--share", is_flag=True, help="Also give the page a public address for a week, as Colab needs.")
@options.debug
def explore_command(**chosen: Any) -> None:
    """Explore a network in the browser: seeds, classes, mixing, directions, attention, walks, projection.

    Serves a page on this machine until Ctrl-C. The address of the page holds the settings, and each image has its
    command line. Needs gradio: pip install 'gradio>=6.31'

    \b
    Examples:
      python generate.py explore --network=network-snapshot-000040.pkl
      python generate.py explore --network=network-snapshot-000040.pkl --share
    """
    check_gradio()
    check_port(chosen["host"], chosen["port"])
    click.echo("Loading the network and gradio ...")
    from sampling.explore.page import serve
    from training.checkpoint.files import existing_file

    network, address = existing_file(chosen["network"]), click.get_current_context().meta["address"]
    serve(network, chosen["ema"], chosen["host"], chosen["port"], chosen["share"], address)


def check_gradio() -> None:
    """Raise ValueError unless gradio is there, and new enough."""
    try:
        found = version("gradio")
    except PackageNotFoundError:
        found = ""
    if not found or tuple(map(int, found.split(".")[:2])) < GRADIO:
        least = f"gradio>={GRADIO[0]}.{GRADIO[1]}"
        has = f"; gradio {found} is too old" if found else ""
        raise ValueError(f"generate.py explore needs {least}{has}: pip install '{least}'")


def check_port(host: str, port: int) -> None:
    """Raise ValueError unless the page can be served there; before anything is loaded."""
    try:
        socket.getaddrinfo(host, port, socket.AF_INET)
        socket.create_server((host, port)).close()
    except (OSError, UnicodeError) as error:  # the second where no host can have such a name
        if isinstance(error, socket.gaierror | UnicodeError) or error.errno == errno.EADDRNOTAVAIL:
            reason = "" if isinstance(error, UnicodeError) else f" ({error.strerror})"
            raise ValueError(
                f"--host={host} is no IPv4 address of this machine{reason}; choose 127.0.0.1 or 0.0.0.0"
            ) from None
        raise ValueError(
            f"--port={port} of --host={host} cannot be used ({error.strerror}); choose another, such as --port={port % 65535 + 1}"
        ) from None
