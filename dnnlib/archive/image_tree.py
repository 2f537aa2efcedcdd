"""The images in a folder or zip."""

from collections import Counter
from functools import cached_property
from pathlib import Path

import numpy as np

from dnnlib.archive.file_tree import FileTree, natural_key
from dnnlib.images import codec as image
from dnnlib.images.codec import Color, Layout
from dnnlib.names import printable

LABEL_FILE = "dataset.json"


class ImageTree(FileTree):
    """A folder or zip whose files are read as images; errors name the file."""

    _may_be_grey = True  # until an image in colour is found, which makes all RGB

    def image_names(self) -> list[str]:
        """Return the files that are images by their suffix, in natural order (2 before 10); at least one."""
        names = sorted(self._image_names, key=natural_key)
        if not names and any(name.split("/")[-1] == "data.pkl" for name in self.names()):
            raise ValueError(
                f"{self.shown} is a network or a training state; name a data set, a folder or zip of images"
            )
        if not names:
            left_out = f"it holds {self.left_out()}; convert images to PNG or JPEG, unpack archives"
            holds = left_out if self.left_out() else "it is empty"
            raise ValueError(f"{self.shown} contains no images ({', '.join(image.SUFFIXES)}); {holds}")
        return names

    def left_out(self) -> str:
        """Return how many files are not read as images, by kind, such as "12 @eaDir, 3 .heic"; "" if there are none."""
        used = {*self._image_names, self.label_file}
        return _by_count(Counter(_kind_of(name) for name in self.names() if name not in used) + self.clutter())

    def name_note(self) -> str:
        """Return a line about names in a zip whose encoding is not known; "" if there are none."""
        if not (self._zip and self._zip.has_guessed_names()):
            return ""
        return (
            f"Warning: {self.shown} has names that are not UTF-8 and were read as code page 437; if they look wrong, "
            f"unpack it with a program that shows them right, and give the folder"
        )

    def suffixes(self) -> str:
        """Return how many images there are of each suffix, such as "11 .png, 1 .jfif"; "" if all have one."""
        kinds = Counter(map(_kind_of, self._image_names))
        return _by_count(kinds) if len(kinds) > 1 else ""

    @cached_property
    def label_file(self) -> str | None:
        """The dataset.json (in any letter case) at the root, or else in the folder that holds all images; or None."""
        if self.exists(LABEL_FILE):
            return LABEL_FILE
        found = [name for name in self.names() if name.split("/")[-1].lower() == LABEL_FILE]
        for name in sorted(found, key=len):
            folder = name[: -len(LABEL_FILE)]
            if all(image_name.startswith(folder) for image_name in self._image_names):
                return name
        return None

    @cached_property
    def _image_names(self) -> list[str]:
        return [name for name in self.names() if name.lower().endswith(image.SUFFIXES)]

    def layout(self, name: str, background: Color | None = None) -> Layout:
        with self.named_errors(name), self.open(name) as file:
            layout = image.read_layout(file, background, self._may_be_grey)
        self._may_be_grey = self._may_be_grey and layout.channels == 1
        return layout

    def pixels(self, name: str, layout: Layout, num_bytes: int, is_exact: bool = False) -> np.ndarray:
        """Return an image, uint8 [height, width, channels], of this layout and file size.

        Grey becomes RGB if need be, unless `is_exact`. If the image has another layout, the cause of the ValueError is a
        LayoutError.
        """
        with self.named_errors(name):
            data = self.read(name)
            if len(data) != num_bytes:
                raise ValueError(f"has {len(data):,} bytes, not {num_bytes:,} as at first; put the original back")
            return image.decode(data, None if is_exact else layout.channels, layout=layout)


def data_set_around(file: Path) -> Path | None:
    """Return the nearest folder with a dataset.json that a file lies in, or None."""
    return next((folder for folder in file.resolve().parents if (folder / LABEL_FILE).is_file()), None)


def _by_count(kinds: Counter[str]) -> str:
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {printable(kind)}" for kind, count in ordered)


def _kind_of(name: str) -> str:
    last = name.split("/")[-1]
    if last.lower() == LABEL_FILE:
        return f"{LABEL_FILE} in sub-folders"
    stem, dot, suffix = last.rpartition(".")
    return f".{suffix.lower()}" if stem and dot else "without a suffix"
