"""The images in a folder or zip."""

import numpy as np

from dnnlib.archive.file_tree import FileTree, natural_order
from dnnlib.images import codec as image
from dnnlib.images.codec import Color, FileKind, Layout


class ImageTree(FileTree):
    """A folder or zip whose files are read as images; errors name the file."""

    def image_names(self) -> list[str]:
        """Return the files that are images by their names, in natural order (2 before 10); at least one."""
        names = natural_order(name for name in self.names() if name.lower().endswith(image.SUFFIXES))
        if not names:
            raise ValueError(f"{self.path} contains no images; looked for names in {', '.join(image.SUFFIXES)}")
        return names

    def layout(self, name: str, background: Color | None = None) -> Layout:
        """Return what the header of a file declares."""
        with self.named_errors(name):
            plain = image.plain_layout(self.start(name, image.HEADER_BYTES))
            if plain:
                return plain
            with self.open(name) as file:
                return image.read_layout(file, background)

    def kind(self, name: str) -> FileKind:
        """Return how a file says it is stored."""
        with self.named_errors(name), self.open(name) as file:
            return image.read_kind(file)

    def decode(self, name: str, channels: int, background: Color | None = None) -> np.ndarray:
        """Return an image in its own size, uint8 [height, width, channels]; grey becomes RGB if need be."""
        with self.named_errors(name):
            return image.decode(self.read(name), channels, background)

    def pixels(self, name: str, layout: Layout, num_bytes: int, is_exact: bool = False) -> np.ndarray:
        """Return an image, uint8 [height, width, channels], of just this layout and size of the file.

        Grey becomes RGB if need be, unless `is_exact`. The cause of the ValueError is a LayoutError where it is another
        layout that is wrong.
        """
        with self.named_errors(name):
            data = self.read(name)
            if len(data) != num_bytes:
                raise ValueError(f"has {len(data):,} bytes, not {num_bytes:,} as at first; put the original back")
            return image.decode(data, None if is_exact else layout.channels, layout=layout)
