"""Opens the source of a new data set, whatever its format."""

import contextlib
import functools
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dnnlib.archive.image_tree import LABEL_FILE, ImageTree
from dnnlib.archive.label_table import folders_without_images, labels_from_folders, read_label_table, some_of
from dnnlib.archive.zip_reader import describe_error
from dnnlib.paths import user_path
from dnnlib.sources import idx_files
from dnnlib.sources.demo import open_demo
from dnnlib.sources.lmdb_images import DATA_FILE, open_lmdb
from dnnlib.sources.source_images import FileImage, ImageSource
from dnnlib.sources.torchvision_sets import PREFIX, NamedSet, find_published, open_torchvision, temporary_folder

DEMO = "demo"


@dataclass(frozen=True)
class SourceOptions:
    max_images: int | None = None  # spread evenly over a folder or zip, else the first ones; None = all
    folder_labels: bool = False  # each sub-folder of a folder or zip is a class
    split: str | None = None  # part of a set that has several; None = the usual one for training
    root: str | None = None  # folder of torchvision's sets; None = "datasets"
    download: bool = False  # of torchvision's sets
    scenes: tuple[int, int] | None = None  # (width, height) of demo scenes; None = single digits


def open_source(source: str, options: SourceOptions | None = None) -> ImageSource:
    """Return the images of `--source`; ValueError if it cannot be opened, or an option is for another kind of source."""
    options = options or SourceOptions()
    if not source.startswith(PREFIX) and (options.root or options.download):
        raise ValueError(f"--root and --download are for --source={PREFIX}NAME only; leave them out")
    if options.scenes and source != DEMO:
        raise ValueError(f"--scenes is for --source={DEMO} only; leave it out")
    path = user_path(source)
    is_tar = path.is_file() and not zipfile.is_zipfile(path) and tarfile.is_tarfile(path)
    opened = _unpack_tar(path) if is_tar else path
    open_set = _opener_of_set(source, opened, options)
    if open_set is None:
        return _open_images(opened, path, options, "it is a tar file" if is_tar else "")
    if options.folder_labels:
        raise ValueError(f"--labels-from-folders is for folders and zip files; {source} has its own labels")
    return open_set()


def _opener_of_set(source: str, path: Path, options: SourceOptions) -> Callable[[], ImageSource] | None:
    """Return a function that opens a set in a format of its own; None for a folder or zip of images."""
    split, limit = options.split, options.max_images
    if source.startswith(PREFIX):
        named_set = NamedSet(source.removeprefix(PREFIX), user_path(options.root or "datasets"), split)
        return lambda: open_torchvision(named_set, options.download, limit)
    if source == DEMO:
        return lambda: open_demo(split or "train", limit, options.scenes)
    if path.is_dir():
        published = find_published(path, source, split)
        if published:
            return lambda: open_torchvision(published, download=False, max_images=limit)
        if (path / DATA_FILE).is_file():
            _refuse_split(options, "an LMDB")
            return lambda: open_lmdb(path, limit)
    images = idx_files.find_images(path, split)
    return functools.partial(idx_files.open_idx, images, limit) if images else None


def _unpack_tar(path: Path) -> Path:
    """Unpack a tar to a temporary folder and return it; members with paths or links outside are refused."""
    folder = temporary_folder() / path.name
    try:
        with tarfile.open(path, tarinfo=_LastHeader) as archive:
            archive.extractall(folder, filter="data")
            _require_end(archive)
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = f"{path} cannot be unpacked to {folder.parent} ({describe_error(error)})"
        raise ValueError(f"{reason}; download it again, or unpack it elsewhere and give the folder") from error
    return folder


class _LastHeader(tarfile.TarInfo):
    """Keeps the block that was last read as a header: tarfile takes a damaged one for the end."""

    block = b""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_LastHeader":
        _LastHeader.block = bytes(buf)
        return super().frombuf(buf, encoding, errors)  # type: ignore[return-value]


def _require_end(archive: tarfile.TarFile) -> None:
    """Raise TarError where the members that were read do not end in two blocks of zeros or the file, or another tar follows."""
    assert archive.fileobj is not None
    block = b""
    with contextlib.suppress(gzip.BadGzipFile):  # bytes behind a gzip file, which gzip ignores
        block = archive.fileobj.read(tarfile.BLOCKSIZE)
        if any(_LastHeader.block) or any(block):
            raise tarfile.ReadError(f"damaged or cut off at byte {archive.offset:,}")
        while block and not any(block):
            block = archive.fileobj.read(tarfile.BLOCKSIZE)
    with contextlib.suppress(tarfile.HeaderError):  # padding that is not zero
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        raise tarfile.ReadError("another tar follows its end; tar --ignore-zeros unpacks both")


def _open_images(path: Path, shown: Path, options: SourceOptions, packing_reason: str) -> ImageSource:
    """Open a folder or zip of images, which messages call `shown`."""
    _refuse_split(options, "a folder or zip of images")
    if not path.exists():
        raise ValueError(f"{path} does not exist; give a folder, a zip or tar file, {DEMO} or {PREFIX}NAME")
    tree = ImageTree(path, shown=shown)
    database = next((name for name in tree.names() if name.split("/")[-1] == DATA_FILE), None)
    if database is not None and path.is_file():
        raise ValueError(f"{tree.origin(database)} is an LMDB, which cannot be read in a zip; unpack it")
    names = tree.image_names()
    empty: list[str] = []
    table = read_label_table(tree)
    if options.folder_labels:
        if table is not None:
            raise ValueError(f"{shown} has labels in its {LABEL_FILE}, which are kept; leave out --labels-from-folders")
        table = labels_from_folders(names, str(shown))
        empty = folders_without_images(names, tree.names() + tree.folders())
        packing_reason = packing_reason or "its classes are folders, which it does not read"
    labels = table.labels_of(names) if table else [None] * len(names)
    images = [FileImage(tree, name, label) for name, label in zip(names, labels, strict=True)]
    chosen = _spread(images, options.max_images)
    return ImageSource(
        len(chosen),
        lambda: chosen,
        table is not None,
        table.class_names if table else (),
        suffixes=tree.suffixes(),
        left_out=tree.left_out(),
        no_classes=some_of(empty),
        name_note=tree.name_note(),
        check=tree.check,
        packing_reason=packing_reason,
    )


def _spread(images: list[FileImage], max_images: int | None) -> list[FileImage]:
    """Return this many images at even steps; the first ones would often be all of one class."""
    if max_images is None or max_images >= len(images):
        return images
    return [images[index * len(images) // max_images] for index in range(max_images)]


def _refuse_split(options: SourceOptions, what: str) -> None:
    if options.split is not None:
        raise ValueError(f"--split={options.split} is not for {what}; leave it out")
