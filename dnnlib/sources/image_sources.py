"""Where the images of a new data set come from: finds out what a source is, and opens it."""

import functools
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dnnlib.archive.file_tree import FileTree
from dnnlib.archive.image_tree import ImageTree
from dnnlib.archive.label_table import FILE_NAME, labels_from_folders, read_label_table
from dnnlib.images.codec import Layout
from dnnlib.sources import demo_digits, idx_files
from dnnlib.sources.cifar_archive import read_cifar10
from dnnlib.sources.lmdb_images import DATA_FILE, open_lmdb
from dnnlib.sources.source_images import ArrayImage, FileImage, ImageSource, SourceImage
from dnnlib.sources.stl10 import is_stl10, open_stl10
from dnnlib.sources.tar_files import TarFiles, is_tar
from dnnlib.sources.torchvision_sets import PREFIX, NamedSet, open_torchvision

DEMO = "demo"


@dataclass(frozen=True)
class SourceOptions:
    """What a command line says about the images beside where they are."""

    max_images: int | None = (
        None  # take at most so many: spread evenly over a folder or zip, else the first; None = all
    )
    folder_labels: bool = False  # make the sub-folders of a folder or zip its classes
    split: str | None = None  # part of a set that has several; None = the usual one for training
    root: str | None = None  # of torchvision's sets: the folder; None = "datasets"
    download: bool = False  # torchvision's sets may be downloaded


def open_source(source: str, options: SourceOptions | None = None) -> ImageSource:
    """Return the images that a command line's `--source` means.

    Raises:
        ValueError: Nothing that can be opened, or an option that is for another kind of source.
    """
    options = options or SourceOptions()
    if not source.startswith(PREFIX) and (options.root or options.download):
        raise ValueError(f"--root and --download are for --source={PREFIX}NAME only; leave them out")
    open_set = _opener_of_set(source, options)
    if open_set is None:
        return _images(source, options)
    if options.folder_labels:
        raise ValueError(f"--labels-from-folders is for folders and zip files; {source} brings its own labels")
    return open_set()


def _opener_of_set(source: str, options: SourceOptions) -> Callable[[], ImageSource] | None:
    """Return what opens a set in a format of its own; None if the source is a folder or zip of images, or no source."""
    split, limit = options.split, options.max_images
    if source.startswith(PREFIX):
        named_set = NamedSet(source.removeprefix(PREFIX), Path(options.root or "datasets").expanduser(), split)
        return lambda: open_torchvision(named_set, options.download, limit)
    if source == DEMO:
        return lambda: _demo(split or "train", limit)
    path = Path(source).expanduser()
    if not os.access(path, os.R_OK) or (path.is_file() and zipfile.is_zipfile(path)):
        return None
    if path.is_dir() and is_stl10(FileTree(path)):
        return lambda: open_stl10(FileTree(path), split, limit)
    if path.is_file() and is_tar(path):
        return lambda: _tar(path, options)
    if (path / DATA_FILE).is_file():
        return lambda: _lsun(path, options)
    images = idx_files.find_images(path, split)
    return functools.partial(idx_files.open_idx, images, limit) if images else None


def _demo(split: str, max_images: int | None) -> ImageSource:
    size = demo_digits.split_size(split)
    count = size if max_images is None else min(max_images, size)

    def images() -> Iterator[SourceImage]:
        for index, (array, label) in enumerate(demo_digits.digits(split, count)):
            yield ArrayImage(f"demo image {index}", array, label)

    names = tuple(str(digit) for digit in range(10))
    return ImageSource(count, images, True, names, Layout(demo_digits.SIZE_PX, demo_digits.SIZE_PX, 3))


def _tar(path: Path, options: SourceOptions) -> ImageSource:
    archive = TarFiles(path)
    return open_stl10(archive, options.split, options.max_images) if is_stl10(archive) else _cifar10(archive, options)


def _cifar10(archive: TarFiles, options: SourceOptions) -> ImageSource:
    _refuse_split(options, "CIFAR-10, whose training images are packed")
    arrays, labels, class_names = read_cifar10(archive)
    all_images = [
        ArrayImage(f"image {index} of {archive.path}", array, label)
        for index, (array, label) in enumerate(zip(arrays, labels, strict=True))
    ]
    chosen = all_images[: options.max_images]
    return ImageSource(len(chosen), lambda: chosen, True, tuple(class_names), chosen[0].layout())


def _lsun(folder: Path, options: SourceOptions) -> ImageSource:
    _refuse_split(options, "an LMDB, which is one part by itself")
    return open_lmdb(folder, options.max_images)


def _images(source: str, options: SourceOptions) -> ImageSource:
    _refuse_split(options, "a folder or zip of images")
    tree = ImageTree(source)
    _refuse_packed_database(tree)
    names = tree.image_names()
    table = read_label_table(tree)
    if options.folder_labels:
        if table is not None:
            raise ValueError(f"{source} has labels in its {FILE_NAME}, which are kept; leave out --labels-from-folders")
        table = labels_from_folders(names, source)
    labels = table.labels_of(names) if table else [None] * len(names)
    images = [FileImage(tree, name, label) for name, label in zip(names, labels, strict=True)]
    chosen = _spread(images, options.max_images)
    return ImageSource(
        len(chosen),
        lambda: chosen,
        table is not None,
        table.class_names if table else (),
        num_others=len(set(tree.names()) - set(names) - {FILE_NAME}),
        check=tree.check,
        packing_reason="its classes are folders, which it does not look at" if options.folder_labels else "",
    )


def _spread(images: list[FileImage], max_images: int | None) -> list[FileImage]:
    """Return so many images at even steps: the first ones would often be all of one class or one film."""
    if max_images is None or max_images >= len(images):
        return images
    return [images[index * len(images) // max_images] for index in range(max_images)]


def _refuse_split(options: SourceOptions, what: str) -> None:
    if options.split is not None:
        raise ValueError(f"--split={options.split} is not for {what}; leave it out")


def _refuse_packed_database(tree: ImageTree) -> None:
    """Raise ValueError for an LMDB in a zip: it can be read in its place on the disk only."""
    database = next((name for name in tree.names() if name.split("/")[-1] == DATA_FILE), None)
    if database is not None and tree.path.is_file():
        raise ValueError(
            f"{tree.origin(database)} is an LMDB, which cannot be read in a zip; unpack it, give the folder"
        )
