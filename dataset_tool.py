"""Packs images into the data set format of StyleGAN2-ADA, a zip or folder of PNG with dataset.json; or looks at them."""

import shlex
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from tqdm import tqdm

from dnnlib.archive.label_table import Label, empty_classes
from dnnlib.archive.writer import check_dest, write_dataset
from dnnlib.command_line import memory_shortage
from dnnlib.dataclass_values import ConfigError
from dnnlib.images.codec import Layout, parse_color
from dnnlib.images.grid import draw_grid
from dnnlib.images.writer import write_image
from dnnlib.names import printable
from dnnlib.packing.inspection import inspect_source, sample_columns
from dnnlib.packing.inspection_text import report
from dnnlib.packing.packer import Packer, Recipe
from dnnlib.packing.transform import FILTERS, KINDS, ImageTransform
from dnnlib.parallel import available_cpus
from dnnlib.paths import require_outside, user_path
from dnnlib.sources.image_sources import DEMO, SourceOptions, open_source
from dnnlib.sources.source_images import ImageSource
from dnnlib.text import format_bytes, format_duration
from training.config import DatasetSpec

Item = TypeVar("Item")

GRID_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
SIDE_PX = click.IntRange(1, 8192)  # larger images are typing errors that would fill the memory


@click.command(context_settings={"max_content_width": 110, "show_default": True})
@click.option("--source", required=True, metavar="PATH|NAME", help="Images to pack, see above.")
@click.option(
    "--dest", metavar="PATH", help="New data set: a name ending in .zip, or a folder.  [required unless --inspect]"
)
@click.option(
    "--inspect",
    is_flag=False,
    flag_value="",
    metavar="[IMAGE]",
    help="Pack nothing: say what the source holds, and write a grid of its images to --inspect=FILE.png.",
)
@click.option("--max-images", type=click.IntRange(1), metavar="N", help="Pack at most N images.  [default: all]")
@click.option(
    "--labels-from-folders", "--class-labels", is_flag=True, help="Make each sub-folder of the source a class."
)
@click.option("--transform", type=click.Choice(KINDS), help="Crop before resizing, see above.  [default: no cropping]")
@click.option("--width", type=SIDE_PX, metavar="PX", help="Resize to this width.  [default: as it is]")
@click.option("--height", type=SIDE_PX, metavar="PX", help="Resize to this height.  [default: as it is]")
@click.option("--resize-filter", type=click.Choice(list(FILTERS)), default="lanczos", help="Filter of the resizing.")
@click.option(
    "--background",
    metavar="COLOR",
    help="What to put behind transparent images: white, grey, #rrggbb, ...  [default: refuse them]",
)
@click.option(
    "--on-error", type=click.Choice(["fail", "skip"]), default="fail", help="At a bad file: stop, or go on without it."
)
@click.option("--split", metavar="NAME", help="Part of the source, see above.  [default: the usual one for training]")
@click.option("--root", metavar="DIR", help="Where torchvision's sets lie.  [default: datasets]")
@click.option("--download", is_flag=True, help="Let torchvision download the set to --root where it is not there.")
@click.option("--force", is_flag=True, help="Replace a data set that exists at --dest.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Processes.  [default: one a processor]")
@click.option("--debug", is_flag=True, help="Show the Python traceback of an error.")
def main(**options: Any) -> None:
    """Pack images into a data set for train.py, all of one size; or only look at them (--inspect).

    \b
    The source is one of
      a folder, a zip   all images in it and its sub-folders (PNG, JPEG, WebP, BMP, GIF, TIFF, PPM);
                        labels in a dataset.json are kept
      demo              6,000 (--split=score: 1,000) coloured digits of 32x32, drawn on the spot
      CIFAR-10          cifar-10-python.tar.gz, the 50,000 training images with their classes
      STL-10            stl10_binary.tar.gz or the folder it unpacks to; --split=train, test (both with classes),
                        unlabeled or train+unlabeled (default, 105,000 images)
      LSUN              a folder with data.mdb, such as church_outdoor_train_lmdb (needs: pip install lmdb)
      MNIST             a folder of train-images-idx3-ubyte and the like, packed (.gz) or not; --split=train, test
      torchvision:NAME  the set of that name in torchvision.datasets, found in --root, with --download fetched
    --max-images takes images spread evenly over a folder or zip, and the first ones of the others.

    \b
    The size stays as it is, or becomes
      --width and/or --height       just that, whatever the shape was
      --transform=center-crop       the largest square in the middle, resized to --width x --height
      --transform=center-crop-wide  the largest middle part of the shape --width x --height, resized to that,
                                    with black above and below in a square of --width x --width
      --transform=celeba            of img_align_celeba.zip, 178x218: the usual 128x128 of the face, resized to
                                    --width x --height if given
      --transform=pad               not resized, with black around it up to --width x --height

    \b
    Examples:
      python dataset_tool.py --source=demo --dest=datasets/demo.zip
      python dataset_tool.py --source=cifar-10-python.tar.gz --dest=datasets/cifar10.zip
      python dataset_tool.py --source=stl10_binary.tar.gz --dest=datasets/stl10.zip --width=48 --height=48
      python dataset_tool.py --source=torchvision:SVHN --download --dest=datasets/svhn.zip
      python dataset_tool.py --source=~/flowers --dest=datasets/flowers.zip --labels-from-folders
      python dataset_tool.py --source=~/photos --dest=datasets/photos.zip --transform=center-crop \\
          --width=128 --height=128 --on-error=skip
      python dataset_tool.py --source=datasets/photos.zip --inspect=grid.png
    """
    if options["dest"] is None and options["inspect"] is None:
        raise click.MissingParameter(param=next(item for item in main.params if item.name == "dest"))
    try:
        pack(options) if options["inspect"] is None else inspect(options)
    except (ValueError, OSError, MemoryError) as error:  # the messages of our own checks say what to do
        if options["debug"]:
            raise
        raise click.ClickException(explain(error)) from error


def explain(error: ValueError | OSError | MemoryError) -> str:
    """Return the message of an error in one line."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be used: {error.strerror}; give another path, or change its permissions"
    return memory_shortage(error) or str(error)


def pack(options: dict[str, Any]) -> None:
    """Write the images of --source to --dest and say what was done."""
    start_sec = time.monotonic()
    dest = user_path(options["dest"])
    if options["source"] != DEMO:
        require_outside(dest, "--dest", options["source"], "--source")
    check_dest(dest, options["force"])
    recipe = read_recipe(options)
    images = open_source(options["source"], read_source_options(options))
    workers = options["workers"] or available_cpus()
    packer = Packer(images, recipe, workers, options["on_error"] == "skip", show_progress)
    layout = packer.find_layout()
    warn_of_refusal(layout)
    with write_dataset(dest, images.class_names, options["force"], layout) as writer:
        for png, label in packer.encoded(layout):
            writer.add(png, label)
    list_skipped(packer.skipped, images.count)
    facts = [f"{writer.count:,} images of {layout}", *describe(images, writer.labels)]
    if packer.num_enlarged:
        facts.append(f"{packer.num_enlarged:,} of them enlarged")
    click.echo(f"{dest}: {', '.join(facts)}, {size(dest)}, in {format_duration(time.monotonic() - start_sec)}")
    if images.left_out:
        click.echo(f"Left out of {options['source']}: {images.left_out}")
    if empty := empty_classes(writer.labels, images.class_names):
        click.echo(f"Warning: empty classes, without images: {empty}", err=True)


def inspect(options: dict[str, Any]) -> None:
    """Print what the source holds, and write a grid of its images where one is asked for."""
    given = [name for name in ("dest", "transform", "width", "height", "background") if options[name] is not None]
    if given:
        raise ValueError(f"--inspect looks at the images as they are and packs nothing; leave out --{given[0]}")
    grid = user_path(options["inspect"]) if options["inspect"] else None
    if grid:
        require_outside(grid, "--inspect", options["source"], "--source")
    if grid and not (grid.suffix.lower() in GRID_SUFFIXES and grid.parent.is_dir()):
        raise ValueError(
            f"--inspect={grid} is not the name of a {', '.join(GRID_SUFFIXES)} file in a folder that exists"
        )
    images = open_source(options["source"], read_source_options(options))
    found = inspect_source(images, options["workers"] or available_cpus(), show_progress)
    for line in report(found, images, source_words(options), refusal):
        click.echo(line)
    if grid and found.samples:
        write_image(grid, draw_grid(sample_columns(found, images.class_names)))
        click.echo(f"{'grid':<12}{grid}")


def source_words(options: dict[str, Any]) -> list[str]:
    """Return the options that open the source as they are to be typed."""
    words = [f"--{name}={shlex.quote(options[name])}" for name in ("source", "split", "root") if options[name]]
    return words + ["--labels-from-folders"] * options["labels_from_folders"]


def refusal(width: int, height: int) -> str | None:
    """Return why train.py cannot take images of a size; None if it can."""
    try:
        DatasetSpec(height, width, channels=3)
    except ConfigError as error:
        return str(error)
    return None


def warn_of_refusal(layout: Layout) -> None:
    """Print to stderr why train.py cannot take what will be packed; it may be meant for another program."""
    if reason := refusal(layout.width, layout.height):
        click.echo(f"Warning: train.py will not take these images: {reason}", err=True)


def read_source_options(options: dict[str, Any]) -> SourceOptions:
    """Return what the options say about the source."""
    return SourceOptions(
        options["max_images"], options["labels_from_folders"], options["split"], options["root"], options["download"]
    )


def read_recipe(options: dict[str, Any]) -> Recipe:
    """Return what the options say about every image."""
    transform = ImageTransform(
        options["transform"], options["width"], options["height"], resize_filter=options["resize_filter"]
    )
    try:
        background = None if options["background"] is None else parse_color(options["background"])
    except ValueError as error:
        raise ValueError(f"--background={error}") from error
    return Recipe(transform, background)


def show_progress(items: Iterable[Item], total: int, title: str) -> Iterable[Item]:
    """Hand the items through, with a bar where a person watches."""
    return tqdm(items, title, total, unit="img", leave=False, disable=None)


def list_skipped(skipped: Sequence[str], total: int) -> None:
    """Print to stderr which files were left out, and why."""
    if skipped:
        click.echo(f"Left out {len(skipped):,} of {total:,} images:", err=True)
        for reason in skipped:
            click.echo(f"  {reason}", err=True)


def describe(images: ImageSource, labels: Sequence[Label]) -> list[str]:
    """Return facts about the labels and files of a source, in a few words each."""
    facts = [f"from {images.suffixes}"] if images.suffixes else []
    if not labels:
        return [*facts, "no labels"]
    if not isinstance(labels[0], int):
        return [*facts, f"labels are vectors of length {len(labels[0])}"]
    names = [printable(name) for name in images.class_names]
    count = max(len(names), max(label for label in labels if isinstance(label, int)) + 1)
    shown = f" ({', '.join(names[:10])}{', ...' if len(names) > 10 else ''})" if names else ""
    return [*facts, f"{count:,} classes{shown}"]


def size(dest: Path) -> str:
    """Return the size of a file, or of all files in a folder, for people."""
    files = [dest] if dest.is_file() else [path for path in dest.rglob("*") if path.is_file()]
    return format_bytes(sum(path.stat().st_size for path in files))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that temporary files are removed
    main()
