"""The pictures in a folder or zip."""

import contextlib
import zipfile
from collections.abc import Iterator

import numpy as np

from dnnlib import picture
from dnnlib.file_tree import FileTree, natural_key
from dnnlib.picture import Layout


class PictureTree(FileTree):
    """A folder or zip whose files are read as pictures; errors name the file."""

    def picture_names(self) -> list[str]:
        """Return the files that are pictures by their names, in natural order (2 before 10); at least one."""
        names = sorted((name for name in self.names() if name.lower().endswith(picture.SUFFIXES)), key=natural_key)
        if not names:
            raise ValueError(f"{self.path} contains no pictures; looked for names in {', '.join(picture.SUFFIXES)}")
        return names

    def origin(self, name: str) -> str:
        """Return what to call a file in a message."""
        return f"{name} in {self.path}"

    def layout(self, name: str) -> Layout:
        """Return what the header of a file declares."""
        with self._named_errors(name), self.open(name) as file:
            return picture.read_layout(file)

    def pixels(self, name: str, layout: Layout) -> np.ndarray:
        """Return a picture, uint8 [height, width, channels]; it must be of this size, grey becomes RGB if need be."""
        with self._named_errors(name):
            pixels = picture.decode(self.read(name), layout.channels)
            if pixels.shape != (layout.height, layout.width, layout.channels):
                decoded = f"{pixels.shape[1]}x{pixels.shape[0]}"
                raise ValueError(f"is {decoded} once decoded, not {layout}; save it again with an image editor")
            return pixels

    @contextlib.contextmanager
    def _named_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            reason = str(error) if isinstance(error, ValueError) else f"cannot be read: {error}"
            raise ValueError(f"{self.origin(name)} {reason}") from error
