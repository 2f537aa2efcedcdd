"""The image files of a data set, opened once per process: names, labels and layout."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from dnnlib.archive.image_format import declared_layout
from dnnlib.archive.image_tree import ImageTree
from dnnlib.archive.label_table import LabelTable, read_label_table
from dnnlib.images.codec import Layout, common_layout

MAX_BROKEN = 10  # different images that may be replaced by others


class DataError(ValueError):
    """The data set can no longer be read. The training state is sound and should be saved."""


class ImageFiles:
    """The files of a zip or folder, from which `ImageDataset`s are made.

    Attributes:
        tree: Reads them.
        path: The zip or folder.
        names: In natural order.
        declared: The layout of all images by dataset.json; None = every header is read once.

    Raises:
        ValueError: No such path, no images in it, or a damaged note in dataset.json.
    """

    def __init__(self, path: str | Path) -> None:
        self.tree = ImageTree(path)
        self.path = self.tree.path
        self.names = self.tree.image_names()
        self.declared = declared_layout(self.tree, len(self.names))
        self._layouts: dict[str, Layout | str] = {}  # by name; text = what is wrong with a damaged file

    @cached_property
    def label_table(self) -> LabelTable | None:
        """The labels of dataset.json, or None. ValueError if it is damaged."""
        return read_label_table(self.tree)

    def notes(self) -> list[str]:
        """Return lines about the kinds of files, those that are not read, and names in an unknown encoding."""
        lines = {
            f"Images by suffix: {self.tree.suffixes()}": self.tree.suffixes(),
            f"Left out of {self.path}: {self.tree.left_out()}": self.tree.left_out(),
            self.tree.name_note(): self.tree.name_note(),
        }
        return [line for line, is_needed in lines.items() if is_needed]

    @cached_property
    def num_bytes(self) -> np.ndarray:
        return np.array(self.tree.sizes(self.names))

    def common_layout(self, names: Sequence[str]) -> Layout:
        """Return the layout that these files share; grey if all are grey, else RGB.

        Raises:
            ValueError: Files of different sizes, or one of an unsupported kind.
            DataError: More than MAX_BROKEN damaged ones in a zip.
        """
        if self.declared:
            return self.declared
        layouts, damaged = {}, {}
        for name in names:
            found = self._layout(name)
            if isinstance(found, Layout):
                layouts[name] = found
            else:
                damaged[name] = found
        if len(damaged) > MAX_BROKEN or not layouts:
            raise too_many_broken_error(self.path, damaged)
        return common_layout(map(self.tree.origin, layouts), layouts.values())

    def _layout(self, name: str) -> Layout | str:
        if name not in self._layouts:
            try:
                self._layouts[name] = self.tree.layout(name)
            except ValueError as error:
                if not self.tree.is_damaged(name):
                    raise
                self._layouts[name] = str(error)
        return self._layouts[name]


def too_many_broken_error(path: Path, broken: dict[str, str]) -> DataError:
    """Return the error to raise for broken images, given what is wrong with each by name."""
    what = "all images are broken" if len(broken) <= MAX_BROKEN else f"more than {MAX_BROKEN} images are broken"
    names = " ".join(", ".join(broken).split())
    return DataError(
        f"{what} in {path}: {names} (the first: {next(iter(broken.values()))}). Copy the data set again from its "
        f"original, or pack it again with dataset_tool.py --on-error=skip and start a new run"
    )
