"""The pictures in a folder or zip."""

import numpy as np

from dnnlib.archive.file_tree import FileTree, natural_order
from dnnlib.images import codec as picture
from dnnlib.images.codec import Color, FileKind, Layout


class PictureTree(FileTree):
    """A folder or zip whose files are read as pictures; errors name the file."""

    def picture_names(self) -> list[str]:
        """Return the files that are pictures by their names, in natural order (2 before 10); at least one."""
        names = natural_order(name for name in self.names() if name.lower().endswith(picture.SUFFIXES))
        if not names:
            raise ValueError(f"{self.path} contains no pictures; looked for names in {', '.join(picture.SUFFIXES)}")
        return names

    def layout(self, name: str, background: Color | None = None) -> Layout:
        """Return what the header of a file declares."""
        with self.named_errors(name):
            plain = picture.plain_layout(self.start(name, picture.HEADER_BYTES))
            if plain:
                return plain
            with self.open(name) as file:
                return picture.read_layout(file, background)

    def kind(self, name: str) -> FileKind:
        """Return how a file says it is stored."""
        with self.named_errors(name), self.open(name) as file:
            return picture.read_kind(file)

    def decode(self, name: str, channels: int, background: Color | None = None) -> np.ndarray:
        """Return a picture in its own size, uint8 [height, width, channels]; grey becomes RGB if need be."""
        with self.named_errors(name):
            return picture.decode(self.read(name), channels, background)

    def pixels(self, name: str, layout: Layout, num_bytes: int, is_exact: bool = False) -> np.ndarray:
        """Return a picture, uint8 [height, width, channels], of just this layout and size of the file.

        Grey becomes RGB if need be, unless `is_exact`. The cause of the ValueError is a LayoutError where it is another
        layout that is wrong.
        """
        with self.named_errors(name):
            data = self.read(name)
            if len(data) != num_bytes:
                raise ValueError(f"has {len(data):,} bytes, not {num_bytes:,} as at first; put the original back")
            return picture.decode(data, None if is_exact else layout.channels, layout=layout)
