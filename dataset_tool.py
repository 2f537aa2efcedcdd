"""Converts images to the data set format of StyleGAN2-ADA, a zip or folder of PNG with dataset.json, or inspects them."""

import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from dnnlib.archive.label_table import Label, empty_classes
from dnnlib.archive.writer import check_dest, write_dataset
from dnnlib.command_line import SETTINGS, Command
from dnnlib.console import protect_console
from dnnlib.dataclass_values import ConfigError
from dnnlib.images.codec import parse_color
from dnnlib.images.writer import write_image
from dnnlib.names import printable
from dnnlib.packing.inspection import inspect_source, report, sample_sheet
from dnnlib.packing.packer import Packer
from dnnlib.packing.transform import FILTERS, KINDS, ImageTransform
from dnnlib.parallel import available_cpus
from dnnlib.paths import require_outside, user_path
from dnnlib.sources.image_sources import DEMO, SourceOptions, open_source
from dnnlib.sources.source_images import ImageSource
from dnnlib.text import format_bytes, format_duration
from training.config import DatasetSpec

GRID_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
SIDE_PX = click.IntRange(1, 8192)  # larger images are typing errors that would fill the memory


@click.command(cls=Command, context_settings=SETTINGS)
@click.option("--source", required=True, metavar="PATH|NAME", help="Images to pack, see above.")
@click.option("--dest", metavar="PATH", help="Output: a .zip file or a folder.  [required unless --inspect]")
@click.option(
    "--inspect",
    is_flag=False,
    flag_value="",
    metavar="[IMAGE]",
    help="Only print statistics of the source; --inspect=FILE.png also writes a grid of its images.",
)
@click.option("--max-images", type=click.IntRange(1), metavar="N", help="Pack at most N images.  [default: all]")
@click.option("--labels-from-folders", "--class-labels", is_flag=True, help="Use each sub-folder as a class.")
@click.option("--transform", type=click.Choice(KINDS), help="Crop before resizing, see above.  [default: none]")
@click.option("--width", type=SIDE_PX, metavar="PX", help="Output width.  [default: unchanged]")
@click.option("--height", type=SIDE_PX, metavar="PX", help="Output height.  [default: unchanged]")
@click.option("--resize-filter", type=click.Choice(list(FILTERS)), default="lanczos", help="Resampling filter.")
@click.option(
    "--background",
    metavar="COLOR",
    help="Color behind transparent images: white, grey, #rrggbb, ...  [default: refuse transparency]",
)
@click.option(
    "--on-error", type=click.Choice(["fail", "skip"]), default="fail", help="Stop at an unusable image, or skip it."
)
@click.option("--split", metavar="NAME", help="Part of the source, see above.  [default: the one for training]")
@click.option("--root", metavar="DIR", help="Folder of torchvision data sets.  [default: datasets]")
@click.option("--download", is_flag=True, help="Download the torchvision data set to --root if it is missing.")
@click.option("--scenes", is_flag=True, help="With --source=demo: scenes of 1 to 5 digits, --width x --height px.")
@click.option("--force", is_flag=True, help="Replace an existing data set at --dest.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Worker processes.  [default: one per CPU]")
@click.option("--debug", is_flag=True, help="Show the Python traceback of an error.")
def main(**options: Any) -> None:
    """Convert images to a data set for train.py: a zip or folder of PNG files of one size, with dataset.json.

    \b
    Sources:
      FOLDER, FILE.zip, FILE.tar  all images in it and its sub-folders: PNG, JPEG, WebP, AVIF, BMP, GIF, TIFF, PPM,
                        JPEG 2000; labels from its dataset.json
      demo              built-in colored digits, 32x32: 6,000, or 1,000 with --split=score; with --scenes several digits
                        per image, of any size, labelled by their number
      CIFAR-10          cifar-10-python.tar.gz; --split=train (default), test
      STL-10            stl10_binary.tar.gz or its folder; --split=train+unlabeled (default, 105,000 images without
                        labels), unlabeled, train, test
      MNIST             folder with train-images-idx3-ubyte etc., gzipped or not; --split=train (default), test
      LSUN              folder with data.mdb, such as church_outdoor_train_lmdb (requires: pip install lmdb)
      torchvision:NAME  the data set torchvision.datasets.NAME in --root
    --max-images takes evenly spaced images of a folder or zip, and the first images of other sources.

    \b
    Output size: that of the source, unless
      --width, --height             resize to this size, ignoring the aspect ratio
      --transform=center-crop       crop the largest centered square, resize to --width x --height
      --transform=center-crop-wide  crop to the aspect ratio of --width x --height, resize, and pad to a square of
                                    --width x --width with black bars
      --transform=celeba            crop the usual 128x128 of img_align_celeba.zip (178x218); resize if --width and
                                    --height are given
      --transform=pad               pad with black to --width x --height, without resizing

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
    pack(options) if options["inspect"] is None else inspect(options)


def say(line: str, is_warning: bool = False) -> None:
    click.echo(printable(line), err=is_warning)


def pack(options: dict[str, Any]) -> None:
    """Write the images of --source to --dest and print a summary."""
    start_sec = time.monotonic()
    dest = user_path(options["dest"])
    if options["source"] != DEMO:
        require_outside(dest, "--dest", options["source"], "--source")
        if dest.is_dir():
            require_outside(options["source"], "--source", dest, "--dest")
    check_dest(dest, options["force"])
    transform = read_transform(options)
    images = open_source(options["source"], read_source_options(options))
    if images.left_out:
        remedy = "; convert .heic images to JPEG to use them" if ".heic" in images.left_out.lower() else ""
        say(f"Left out of {options['source']}: {images.left_out}{remedy}")
    workers = options["workers"] or available_cpus()
    packer = Packer(images, transform, workers, options["on_error"] == "skip")
    layout = packer.find_layout()
    if reason := refusal(layout.width, layout.height):
        say(f"Warning: train.py will not take these images: {reason}", is_warning=True)
    with write_dataset(dest, images.class_names, options["force"], layout) as writer:
        for png, label in packer.encoded(layout):
            writer.add(png, label)
    if packer.skipped:
        say(f"Skipped {len(packer.skipped):,} of {images.count:,} images:", is_warning=True)
    for reason in packer.skipped:
        say(f"  {reason}", is_warning=True)
    facts = [f"{writer.count:,} images of {layout}", *describe(images, writer.labels)]
    if packer.num_enlarged:
        facts.append(f"{packer.num_enlarged:,} of them enlarged")
    if packer.num_stretched:
        facts.append(f"{packer.num_stretched:,} of them stretched (--transform=center-crop keeps proportions)")
    say(f"{dest}: {', '.join(facts)}, {size(dest)}, in {format_duration(time.monotonic() - start_sec)}")
    warn_of_names(images)
    if empty := empty_classes(writer.labels, images.class_names):
        say(f"Warning: empty classes, without images: {empty}", is_warning=True)


def inspect(options: dict[str, Any]) -> None:
    """Print statistics of the source, and write a grid of its images if asked for."""
    for name in ("dest", "transform", "width", "height", "background"):
        is_of_scenes = options["scenes"] and name in ("width", "height")
        if options[name] is not None and not is_of_scenes:
            raise ValueError(f"--inspect packs nothing; leave out --{name}")
    grid = user_path(options["inspect"]) if options["inspect"] else None
    if grid:
        require_outside(grid, "--inspect", options["source"], "--source")
        if grid.suffix.lower() not in GRID_SUFFIXES or not grid.parent.is_dir():
            suffixes = ", ".join(GRID_SUFFIXES)
            raise ValueError(f"--inspect={grid} is not the name of a {suffixes} file in a folder that exists")
    images = open_source(options["source"], read_source_options(options))
    found = inspect_source(images, options["workers"] or available_cpus())
    for line in report(found, images, source_words(options), refusal):
        say(line)
    warn_of_names(images)
    if grid and found.samples:
        write_image(grid, sample_sheet(found, images.class_names))
        say(f"{'grid':<12}{grid}")


def warn_of_names(images: ImageSource) -> None:
    """Print warnings about names of unknown encoding and folders that are no classes."""
    if images.name_note:
        say(images.name_note, is_warning=True)
    if images.no_classes:
        say(f"Warning: folders without images, which are no classes: {images.no_classes}", is_warning=True)


def source_words(options: dict[str, Any]) -> list[str]:
    """Return the options that select the source, quoted for a shell."""
    words = [f"--{name}={shlex.quote(options[name])}" for name in ("source", "split", "root") if options[name]]
    if options["scenes"]:
        words += ["--scenes", *(f"--{name}={options[name]}" for name in ("width", "height") if options[name])]
    return words + ["--labels-from-folders"] * options["labels_from_folders"]


def refusal(width: int, height: int) -> str | None:
    """Return why train.py cannot train on images of a size; None if it can."""
    try:
        DatasetSpec(height, width, channels=3)
    except ConfigError as error:
        return str(error)
    return None


def read_source_options(options: dict[str, Any]) -> SourceOptions:
    width, height = options["width"] or options["height"], options["height"] or options["width"]
    if options["scenes"] and not width:
        raise ValueError("--scenes needs a size: add --width=256, for instance")
    scenes = (width, height) if options["scenes"] else None
    return SourceOptions(
        options["max_images"],
        options["labels_from_folders"],
        options["split"],
        options["root"],
        options["download"],
        scenes,
    )


def read_transform(options: dict[str, Any]) -> ImageTransform:
    background = None if options["background"] is None else parse_color(options["background"])
    size = options["width"], options["height"]
    return ImageTransform(options["transform"], *size, options["resize_filter"], background)


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
    files = [dest] if dest.is_file() else [path for path in dest.rglob("*") if path.is_file()]
    return format_bytes(sum(path.stat().st_size for path in files))


def end(number: int, _: object) -> None:
    """End at a signal; further ones do not interrupt the removal of temporary files."""
    for other in {signal.SIGINT, signal.SIGTERM, number}:
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def end_at_signals() -> None:
    """Let SIGTERM and, unless nohup ignores it, SIGHUP end the program in a way that removes temporary files."""
    for number in [signal.SIGTERM] if sys.platform == "win32" else [signal.SIGTERM, signal.SIGHUP]:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)


if __name__ == "__main__":
    protect_console()
    end_at_signals()
    main()
