"""The commands of generate.py that look into a network: attention, directions, projection, nearest images."""

from typing import Any

import click

from sampling.commands.options import (
    class_option,
    command,
    cutoff_option,
    debug_option,
    drawing_options,
    finite,
    load,
    make_folder,
    make_renderer,
    make_request,
    network_option,
    number_list,
    options,
    outdir_option,
    seeds_option,
    trunc_option,
)


def chosen_layers(numbers: list[int] | None, count: int) -> list[int]:
    """The numbers of --layers, or all. Raises ValueError for one that is too large."""
    if numbers and max(numbers) >= count:
        raise ValueError(f"--layers: there is no {max(numbers)} in this network; choose from 0-{count - 1}")
    return sorted(set(numbers)) if numbers else list(range(count))


@command("attention")
@options(network_option, seeds_option, outdir_option)
@click.option(
    "--points", metavar="LIST", help="Query points 'y,x;y,x', px from the top left.  [default: the middle and 3 others]"
)
@click.option("--layers", callback=number_list, metavar="LIST", help="Encoder layers, from 0.  [default: all]")
@options(trunc_option, cutoff_option, class_option, debug_option)
def attention_command(**chosen: Any) -> None:
    """Show what points of an image attend to, in each layer and head.

    Writes an overview, attention0003.png, and attention0003-layer00.png, ... for each layer. The query point has a
    frame; the brighter a place, the more of it is mixed in there. "3.2x" says that the brightest place gets 3.2 times
    its even share.

    \b
    Examples:
      python generate.py attention --network=network-snapshot-000040.pkl --seeds=3 --outdir=out
      python generate.py attention --network=network-snapshot-000040.pkl --seeds=3 --points='16,16;4,20' --outdir=out
    """
    generator = load(chosen["network"])
    from sampling.attention_sheets import parse_points, write_attention
    from sampling.styles import styles

    points = parse_points(chosen["points"], generator.img_height, generator.img_width)
    layers = chosen_layers(chosen["layers"], generator.num_ws - 1)
    request, outdir = make_request(generator, chosen), make_folder(chosen["outdir"])
    for seed in chosen["seeds"]:
        name = f"attention{seed:04d}"
        write_attention(generator, styles(generator, [seed], request), name, points, layers, "const", outdir)


@command("directions")
@options(network_option, seeds_option, outdir_option)
@click.option("--layers", callback=number_list, metavar="LIST", help="Styles that are moved, from 0.  [default: all]")
@click.option(
    "--count", type=click.IntRange(1), metavar="N", help="Directions, those of most effect first.  [default: 5]"
)
@click.option(
    "--strength",
    default=3.0,
    callback=finite,
    metavar="S",
    help="Farthest step, in standard deviations of w along the direction.",
)
@click.option("--steps", default=7, type=click.IntRange(3, 999), metavar="N", help="Images a strip, an odd number.")
@click.option("--directions", "file", metavar="FILE", help="Use the directions.npz of an earlier call.")
@options(trunc_option, cutoff_option, class_option, drawing_options)
def directions_command(**chosen: Any) -> None:
    """Find directions of W that change images most, and show them.

    They follow from the weights alone (SeFa, arXiv 2007.06600). Writes directions-00.png, ..., one row a seed, with the
    seed's own image in the middle; and directions.npz.

    \b
    Examples:
      python generate.py directions --network=network-snapshot-000040.pkl --seeds=0-5 --outdir=out
      python generate.py directions --network=network-snapshot-000040.pkl --seeds=0-5 --layers=0-2 --count=8 --outdir=out
      python generate.py directions --network=other.pkl --directions=out/directions.npz --seeds=0-5 --outdir=out2
    """
    if chosen["file"] and (chosen["layers"] or chosen["count"]):
        raise ValueError(f"--directions={chosen['file']} says which they are: leave out --layers and --count")
    generator = load(chosen["network"])
    from sampling.direction_strips import choose_directions, write_strips
    from sampling.directions import steps

    layers = chosen_layers(chosen["layers"], generator.num_ws)
    found = choose_directions(generator, chosen["file"], layers, chosen["count"] or 5)
    renderer = make_renderer(generator, chosen)
    request, outdir = make_request(generator, chosen), make_folder(chosen["outdir"])
    amounts = steps(chosen["strength"], chosen["steps"])
    write_strips(renderer, found, chosen["seeds"], request, amounts, outdir)


@command("project")
@network_option
@click.option("--target", "targets", required=True, multiple=True, metavar="FILE", help="An image; may be repeated.")
@outdir_option
@click.option("--space", default="w", type=click.Choice(["w", "w+"]), help="w+ = a style of its own for each layer.")
@click.option(
    "--starts", default=3, type=click.IntRange(1, 999), metavar="N", help="Descents at once; the best is kept."
)
@click.option("--steps", "--num-steps", default=300, type=click.IntRange(1), metavar="N", help="Steps of each descent.")
@click.option(
    "--candidates", default=1000, type=click.IntRange(1, 10**6), metavar="N", help="Random w tried for the starts."
)
@click.option("--class", "class_name", metavar="CLASS", help="Class to begin with.  [default: whichever is closest]")
@click.option("--lpips", metavar="FILE", help="Compare by LPIPS; the file has its weights for VGG16's channels.")
@click.option("--animation", is_flag=True, help="Also show the way: proj00.webp, ...")
@click.option("--seed", default=0, type=click.IntRange(0), metavar="N", help="Seed of the candidates.")
@debug_option
def project_command(**chosen: Any) -> None:
    """Find the styles whose image comes closest to a given one.

    Images are compared by their pixels and by the features of the snapshot's own discriminator. Writes proj00.png,
    ..., the target and its projection, and projected_w.npz, which --w takes.

    \b
    Examples:
      python generate.py project --network=network-snapshot-000040.pkl --target=photo.png --outdir=out
      python generate.py project --network=network-snapshot-000040.pkl --target=a.png --target=b.png --outdir=out
    """
    generator = load(chosen["network"])
    from sampling.classes import find_class
    from sampling.projection.files import choose_embedding, project_files
    from sampling.projection.projector import Projector, Search
    from sampling.projection.target import read_targets

    class_index = find_class(generator, chosen["class_name"])
    starts = {name: chosen[name] for name in ("starts", "candidates", "seed")}
    search = Search(num_steps=chosen["steps"], is_plus=chosen["space"] == "w+", class_index=class_index, **starts)
    targets = read_targets(chosen["targets"], generator)
    projector = Projector(generator, choose_embedding(chosen["network"], generator, chosen["lpips"]), search)
    project_files(projector, targets, chosen["targets"], make_folder(chosen["outdir"]), chosen["animation"])


@command("nearest")
@options(network_option, seeds_option, outdir_option)
@click.option("--data", metavar="PATH", help="Real images: zip or folder.  [default: the network's training set]")
@click.option("--count", default=5, type=click.IntRange(1), metavar="N", help="Nearest real images of each.")
@click.option(
    "--by", default="pixels", type=click.Choice(["pixels", "features"]), help="features = of the own discriminator."
)
@click.option("--mirror", type=bool, metavar="BOOL", help="Flipped real images too.  [default: as trained]")
@options(trunc_option, cutoff_option, class_option, drawing_options)
def nearest_command(**chosen: Any) -> None:
    """Show the training images nearest to generated ones: is the network memorising?

    Writes nearest.png: each row a generated image, then its nearest real ones with their distances. Prints how far the
    nearest is, how far that one is from its own nearest other real image, and the ratio: a copy has one far below 1.

    \b
    Examples:
      python generate.py nearest --network=network-snapshot-000040.pkl --seeds=0-7 --outdir=out
      python generate.py nearest --network=network-snapshot-000040.pkl --seeds=0-7 --by=features --outdir=out
    """
    generator = load(chosen["network"])
    from sampling.nearest_sheet import choose_description, write_neighbours
    from sampling.real_neighbours import open_real

    dataset = open_real(chosen["network"], generator, chosen["data"], chosen["mirror"])
    renderer = make_renderer(generator, chosen)
    images = list(renderer.seed_batches(chosen["seeds"], make_request(generator, chosen)))
    names = [f"seed {seed}" for seed in chosen["seeds"]]
    description = choose_description(chosen["network"], generator, chosen["by"])
    write_neighbours(images, names, dataset, chosen["count"], description, make_folder(chosen["outdir"]))
