"""Packs pictures into the data set format of StyleGAN2-ADA: a zip (or folder) of PNG files with dataset.json."""

import functools
import operator
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import click
from tqdm import tqdm

from dnnlib.dataset_archive import check_dest, write_dataset
from dnnlib.demo_digits import SPLITS
from dnnlib.image_sources import ImageSource, encode, open_source
from dnnlib.parallel import available_cpus, ordered_map
from dnnlib.picture import Layout, common_layout
from dnnlib.text import format_bytes, format_duration

Item = TypeVar("Item")


@click.command(context_settings={"max_content_width": 110, "show_default": True})
@click.option("--source", required=True, metavar="PATH|demo", help="Pictures to pack, see above.")
@click.option("--dest", required=True, metavar="PATH", help="New data set: a name ending in .zip, or a folder.")
@click.option("--max-images", type=click.IntRange(min=1), help="Pack at most so many pictures.")
@click.option(
    "--labels-from-folders", "--class-labels", is_flag=True, help="Make each sub-folder of the source a class."
)
@click.option("--split", type=click.Choice(list(SPLITS)), help="Part of the demo set; train if not given.")
@click.option("--force", is_flag=True, help="Replace a data set that exists at --dest.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes; as many as there are processors if not given.")
def main(
    source: str,
    dest: str,
    max_images: int | None,
    labels_from_folders: bool,
    split: str | None,
    force: bool,
    workers: int | None,
) -> None:
    """Pack pictures of one size into a data set for train.py.

    \b
    The source is one of
      a folder    all pictures in it and its sub-folders (PNG, JPEG, WebP, BMP, GIF, TIFF, PPM)
      a zip       the same; labels in a dataset.json are kept
      a tar file  cifar-10-python.tar.gz, the 50,000 training pictures with their classes
      demo        6,000 (--split=score: 1,000) coloured digits of 32x32, drawn on the spot

    --max-images takes pictures spread evenly over a folder or zip, and the first ones of the others.

    \b
    Examples:
      python dataset_tool.py --source=demo --dest=datasets/demo.zip
      python dataset_tool.py --source=cifar-10-python.tar.gz --dest=datasets/cifar10.zip
      python dataset_tool.py --source=~/flowers --dest=datasets/flowers.zip --labels-from-folders
    """
    try:
        pack(source, Path(dest).expanduser(), max_images, labels_from_folders, split, force, workers)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


def pack(
    source: str,
    dest: Path,
    max_images: int | None,
    labels_from_folders: bool,
    split: str | None,
    force: bool,
    workers: int | None,
) -> None:
    """Write the pictures of `source` to `dest` and say what was done."""
    start_sec = time.monotonic()
    workers = workers or available_cpus()
    check_dest(dest, force)
    if Path(source).expanduser().resolve() == dest.resolve():
        raise ValueError(f"--source and --dest are both {dest}; give the new data set another name")
    images = open_source(source, max_images, labels_from_folders, split)
    layout = images.layout or _find_layout(images, workers)
    encoded = ordered_map(functools.partial(encode, layout), images.pictures(), workers)
    with write_dataset(dest, images.class_names, force) as writer:
        for png, label in _progress(encoded, images.count, "Packing"):
            writer.add(png, label)
    click.echo(
        f"{dest}: {_describe(images, layout)}, {_size(dest)}, in {format_duration(time.monotonic() - start_sec)}"
    )


def _find_layout(images: ImageSource, workers: int) -> Layout:
    layouts = ordered_map(operator.methodcaller("layout"), images.pictures(), workers)
    origins = (picture.origin for picture in images.pictures())
    return common_layout(origins, _progress(layouts, images.count, "Checking"))


def _progress(items: Iterable[Item], total: int, title: str) -> Iterable[Item]:
    return tqdm(items, title, total, unit="img", leave=False, disable=None)  # None = only where a person watches


def _describe(images: ImageSource, layout: Layout) -> str:
    text = f"{images.count:,} pictures of {layout}"
    if images.class_names:
        text += f", {len(images.class_names)} classes ({', '.join(images.class_names[:10])}"
        text += ", ...)" if len(images.class_names) > 10 else ")"
    elif images.labelled:
        text += ", labelled"
    else:
        text += ", no labels"
    return text + (f", {images.num_skipped} other files left out" if images.num_skipped else "")


def _size(dest: Path) -> str:
    files = [dest] if dest.is_file() else [path for path in dest.rglob("*") if path.is_file()]
    return format_bytes(sum(path.stat().st_size for path in files))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that temporary files are removed
    main()
