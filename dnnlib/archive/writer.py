"""Writes data sets: PNG files and dataset.json, in a zip or folder that appears when it is complete."""

import contextlib
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dnnlib.archive.file_tree import clutter_kind
from dnnlib.archive.image_tree import LABEL_FILE
from dnnlib.archive.label_table import KEY, Label, check_labels, format_note
from dnnlib.files import NameTakenError, atomic_folder, atomic_write, filled_folder
from dnnlib.images.codec import SUFFIXES, Layout
from dnnlib.names import printable

_FOLDER_SIZE = 1000  # images
_IMAGE_NAME = re.compile(r"img[0-9]{8}\.png")
_OTHER_SUFFIXES = (".tar", ".tgz", ".gz", ".xz", ".bz2", ".7z", ".rar", *SUFFIXES)


class DatasetWriter:
    def __init__(self, put: Callable[[str, bytes], None]) -> None:
        self.count = 0
        self._put = put
        self.labels: list[Label] = []
        self._names: list[str] = []

    def add(self, png: bytes, label: Label | None) -> None:
        name = f"{self.count // _FOLDER_SIZE:05d}/img{self.count:08d}.png"
        self._put(name, png)
        self.count += 1
        if label is not None:
            self.labels.append(label)
            self._names.append(name)

    def finish(self, class_names: Sequence[str], layout: Layout | None) -> None:
        """Store dataset.json, which declares the layout of all images if it is given."""
        if self.labels and len(self.labels) != self.count:
            raise ValueError(f"{len(self.labels)} of {self.count} images have a label; label every image or none")
        pairs = list(zip(self._names, self.labels, strict=True))
        check_labels(pairs, class_names, "the new data set")
        content: dict[str, object] = {"labels": pairs or None}
        if class_names:
            content["class_names"] = list(class_names)
        if layout:
            content[KEY] = format_note(layout, self.count)
        self._put(LABEL_FILE, json.dumps(content).encode())


def check_dest(dest: str | Path, force: bool = False) -> None:
    """Raise ValueError if `dest` cannot be written, or holds anything but a data set that --force may replace."""
    dest = Path(dest)
    if dest.suffix.lower() == ".zip":
        if dest.is_dir():
            raise ValueError(f"{dest} is a folder; give a zip file that can be written, or a folder name without .zip")
        if dest.exists() and not force:
            raise ValueError(_exists(dest))
    elif dest.is_dir():
        if not _is_empty(dest):
            _check_replaced(dest, force)
    elif dest.suffix.lower() in _OTHER_SUFFIXES:
        raise ValueError(f"{dest}: {dest.suffix} files are not written; give a name ending in .zip, or a folder")
    elif dest.exists():
        raise ValueError(f"{dest} is a file; give a name ending in .zip, or a folder")
    _check_writable(dest)


@contextlib.contextmanager
def write_dataset(
    dest: str | Path, class_names: Sequence[str] = (), force: bool = False, layout: Layout | None = None
) -> Iterator[DatasetWriter]:
    """Yield a writer whose data set appears at `dest` when the block ends without an error.

    Args:
        dest: A zip file if it ends in .zip (stored, not compressed: PNG already is), else a folder.
        layout: Of all images; None = unknown, headers are read when the data set is opened.
    """
    dest = Path(dest)
    check_dest(dest, force)
    place = _place(dest)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _zip_file(place, force) if dest.suffix.lower() == ".zip" else _folder(place, force) as put:
            writer = DatasetWriter(put)
            yield writer
            writer.finish(class_names, layout)
            if force:
                check_dest(dest, force)  # again: what has appeared there meanwhile may be no data set
    except NameTakenError as error:
        raise ValueError(
            f"{dest} appeared while this program was packing; run it again" if force else _exists(dest)
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"{dest} cannot be written: {reason}; make room there, or give another place") from error


@contextlib.contextmanager
def _zip_file(place: Path, force: bool) -> Iterator[Callable[[str, bytes], None]]:
    with atomic_write(place, replace=force) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

        def put(name: str, content: bytes) -> None:
            info = zipfile.ZipInfo(name)  # its date is 1980: the same images give the same bytes
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, content)

        yield put


@contextlib.contextmanager
def _folder(place: Path, force: bool) -> Iterator[Callable[[str, bytes], None]]:
    is_kept = place.is_dir() and _is_empty(place)
    with filled_folder(place) if is_kept else atomic_folder(place, replace=force) as folder:

        def put(name: str, content: bytes) -> None:
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)

        yield put


def _place(dest: Path) -> Path:
    """Return where a data set really lies, which is not replaced by links that lead to it."""
    return Path(os.path.realpath(dest))


def _exists(dest: Path) -> str:
    return f"{dest} exists; give another name, or --force to replace it"


def _check_replaced(dest: Path, force: bool) -> None:
    """Raise ValueError unless a folder that is not empty is a data set that may and can be replaced."""
    if name := _no_part_of_a_dataset(dest):
        raise ValueError(
            f"{dest} holds {printable(name)}, which is no part of a data set; move it away, or give another folder"
        )
    if not (dest / LABEL_FILE).is_file():
        raise ValueError(f"{dest} has no {LABEL_FILE}, so it is no data set; give an empty or a new folder")
    if not force:
        raise ValueError(f"{dest} already holds a data set; give another name, or --force to replace it")
    if os.path.ismount(_place(dest)):
        raise ValueError(f"{dest} is a mount point, which cannot be replaced; empty it first, or give a folder in it")
    if Path.cwd().is_relative_to(_place(dest)):
        raise ValueError(f"{dest} is the current folder, which cannot be replaced; change to another one first (cd ..)")


def _check_writable(dest: Path) -> None:
    place = _place(dest)
    is_kept = place.is_dir() and _is_empty(place)
    folder = place if is_kept else next(parent for parent in place.parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise ValueError(f"{dest} cannot be written, as {folder} is no folder; give another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{dest} cannot be written, as {folder} is write-protected; give another place")


def _is_empty(folder: Path) -> bool:
    """Return whether there is nothing in a folder but hidden files and clutter, which are not read as images."""
    return all(clutter_kind(name) for name in os.listdir(folder))


def _no_part_of_a_dataset(folder: Path) -> str | None:
    """Return the name of a file or folder inside that no data set has; None if there is none."""
    for path in folder.iterdir():
        if path.name == LABEL_FILE or clutter_kind(path.name):
            continue
        if path.is_symlink() or not path.is_dir() or not re.fullmatch("[0-9]{5}", path.name):
            return path.name
        for name in os.listdir(path):
            if not (_IMAGE_NAME.fullmatch(name) or clutter_kind(name)):
                return f"{path.name}/{name}"
    return None
