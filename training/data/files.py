"""The image files of a data set, opened once per process: their names, labels, and what their headers declare."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dnnlib.archive.image_format import declared_layout
from dnnlib.archive.image_tree import ImageTree
from dnnlib.archive.label_table import FILE_NAME, LabelTable, empty_classes, read_label_table
from dnnlib.images.codec import Layout, common_layout
from training.data.workers import DataError

MAX_BROKEN = 10  # different images that others may stand in for


class ImageFiles:
    """The files of a zip or folder, from which `ImageDataset`s are made: with or without labels, of all images or some.

    Attributes:
        tree: Reads them.
        path: The zip or folder.
        names: In natural order.
        declared: The layout of all images by dataset.json; None = their headers have to be read, each once.

    Raises:
        ValueError: No such path, no images in it, or a damaged note in dataset.json.
    """

    def __init__(self, path: str | Path) -> None:
        self.tree = ImageTree(path)
        self.path = self.tree.path
        self.names = self.tree.image_names()
        self.declared = declared_layout(self.tree, len(self.names))
        self._layouts: dict[str, Layout | str] = {}  # by name; text = what is wrong with a damaged file

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in ("tree", "path", "names", "declared")}
        return {**kept, "_layouts": {}}  # the rest is found again where it is needed

    @cached_property
    def label_table(self) -> LabelTable | None:
        """What dataset.json says about labels; None where there are none. ValueError if it is damaged."""
        return read_label_table(self.tree)

    def notes(self, uses_labels: bool) -> list[str]:
        """Return lines about files that are not read, classes without images and labels that are not used."""
        notes = [f"Images by suffix: {suffixes}" for suffixes in [self.tree.suffixes()] if suffixes]
        notes += [f"Left out of {self.path}: {files}" for files in [self.tree.left_out()] if files]
        try:
            table = self.label_table
        except ValueError:
            return notes  # only training on labels needs them
        if table and not uses_labels:
            notes.append(f"The labels of {self.path} are not used; to train on them, start with --cond=1")
        elif table and (empty := empty_classes(table.by_name.values(), table.class_names)):
            notes.append(f"Warning: empty classes, without images: {empty}")
        return notes

    @cached_property
    def num_bytes(self) -> np.ndarray:
        """The size of each file, int64 [files]."""
        return np.array(self.tree.sizes(self.names))

    def common_layout(self, names: Sequence[str]) -> Layout:
        """Return the layout that these files share; grey if all are grey, else RGB.

        Some members of a zip may be damaged, as others will stand in for them.

        Raises:
            ValueError: Files of two sizes, or one of an unsupported kind.
            DataError: More than MAX_BROKEN damaged ones.
        """
        if self.declared:
            return self.declared
        layouts, damaged = {}, {}
        for name in names:
            found = self._layouts[name] if name in self._layouts else self._read(name)
            if isinstance(found, Layout):
                layouts[name] = found
            else:
                damaged[name] = found
        if len(damaged) > MAX_BROKEN or not layouts:
            raise too_many_broken_error(self.path, damaged, MAX_BROKEN)
        return common_layout(map(self.tree.origin, layouts), layouts.values())

    def contradiction(self, error: ValueError) -> DataError:
        """Return what to raise where a file is sound, but not what dataset.json declares."""
        return DataError(
            f"{error}. {self.tree.origin(FILE_NAME)} declares {self.declared} for all images: pack the data set again with "
            f"dataset_tool.py"
        )

    def _read(self, name: str) -> Layout | str:
        try:
            self._layouts[name] = self.tree.layout(name)
        except ValueError as error:
            if not self.tree.is_damaged(name):
                raise
            self._layouts[name] = str(error)
        return self._layouts[name]


def too_many_broken_error(path: Path, broken: dict[str, str], max_broken: int) -> DataError:
    """Return the error that names the broken images, by name what is wrong with each."""
    what = "all images are broken" if len(broken) <= max_broken else f"more than {max_broken} images are broken"
    names = " ".join(", ".join(broken).split())
    return DataError(
        f"{what} in {path}: {names} (the first: {next(iter(broken.values()))}). Copy the data set again from where it is "
        f"whole, or pack it again with dataset_tool.py --on-error=skip and start a new run"
    )
