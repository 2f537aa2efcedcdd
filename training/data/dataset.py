"""The images and labels of a data set: its files, opened once per process, and the data sets made of them."""

import functools
import hashlib
import itertools
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dnnlib.archive.image_tree import LABEL_FILE, ImageTree
from dnnlib.archive.label_table import LabelTable, declared_layout, read_label_table
from dnnlib.archive.zip_reader import ChangedError
from dnnlib.images.codec import Layout, LayoutError, common_layout
from dnnlib.text import format_int_list
from torch_utils.transfer import to_device_async
from training.config import DatasetSpec
from training.data.labels import Labels

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
        suffixes, left_out = self.tree.suffixes(), self.tree.left_out()
        lines = [suffixes and f"Images by suffix: {suffixes}", left_out and f"Left out of {self.path}: {left_out}"]
        return [line for line in (*lines, self.tree.name_note()) if line]

    @cached_property
    def num_bytes(self) -> np.ndarray:
        return np.array(self.tree.sizes(self.names))

    def common_layout(self, names: Sequence[str]) -> Layout:
        """Return the layout that these files share; grey if all are grey, else RGB.

        Raises ValueError for different sizes or an unsupported kind; DataError for more than MAX_BROKEN damaged ones in a zip.
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


class DecodedImages(NamedTuple):
    """All images of a data set, decoded; pickled, they carry at most the path of their file."""

    pixels: Tensor  # uint8 [files, channels, height, width], on the CPU or a GPU
    path: Path | None = None  # of the .npy that the pixels are mapped from

    def __reduce__(self) -> tuple[Any, ...]:
        return map_decoded, (self.path, tuple(self.pixels.shape))


def map_decoded(path: Path | None, shape: tuple[int, ...]) -> DecodedImages | None:
    """Return the images of an .npy file; None where it is missing, damaged or of another shape.

    Processes share its memory; what one of them writes there stays its own.
    """
    try:
        content = np.load(path, mmap_mode="c") if path else None
    except Exception:  # NumPy raises nearly anything where a header is damaged
        return None
    if content is None or content.dtype != np.uint8 or content.shape != shape:
        return None
    return DecodedImages(torch.from_numpy(content), path)


class BrokenImage(NamedTuple):
    """An image that could not be read, and the one used in its place."""

    name: str  # of its file
    problem: str  # names the file too
    stand_in: str  # name of the other file


class ImageDataset(Dataset[tuple[np.ndarray, np.ndarray]]):
    """The images of a zip or folder, optionally with their labels.

    Attributes:
        spec: What the networks need to know.
        files: All files of the zip or folder; further data sets can be made of them without opening it again.
        path: The zip or folder.
        num_files: Images in use, before mirroring.
        shape: Of the images in use, [files, channels, height, width], before mirroring.
        cache: Decoded images (`cache_decoded`); None = each image is decoded when it is read.
        broken: Error messages of broken images by name, filled by `stream`.

    Raises:
        ValueError: No such path, no images in it, images of different sizes or of an unsupported kind, more than
            MAX_BROKEN damaged ones, labels that are missing or do not match the images.
    """

    def __init__(
        self,
        source: str | Path | ImageFiles,
        use_labels: bool = False,  # otherwise labels have length 0
        mirror: bool = False,  # append a horizontally flipped copy of every image
        max_images: int | None = None,  # use a random subset of this size
        seed: int = 0,  # of the subset
        left_out: Collection[str] = (),  # names of images that do not belong to it
        channels: int | None = None,  # 1 takes colour images whose channels are equal for grey; None = as in the files
    ) -> None:
        self.files = source if isinstance(source, ImageFiles) else ImageFiles(source)
        self._tree, self.path = self.files.tree, self.files.path
        self._mirror = mirror
        positions = [position for position, name in enumerate(self.files.names) if name not in left_out]
        names = [self.files.names[position] for position in positions]
        none = Labels(np.zeros((len(names), 0))), ()
        labels, class_names = _read_labels(self.files, names) if use_labels else none
        chosen = _subset(len(names), max_images, seed, self.path)
        self._names = [names[index] for index in chosen]
        self._labels = labels.subset(chosen)
        self.num_files = len(self._names)
        self._layout = self.files.common_layout(self._names)
        self._num_bytes = self.files.num_bytes[positions][chosen]
        self._is_converted = channels not in (None, self._layout.channels)
        self._is_exact = self.files.declared is not None and not self._is_converted
        channels, height, width = channels or self._layout.channels, self._layout.height, self._layout.width
        self._layout = Layout(width, height, channels)
        self.shape = (self.num_files, channels, height, width)
        self.cache: DecodedImages | None = None
        self.broken: dict[str, str] = {}
        self.spec = DatasetSpec(
            height, width, channels, labels.shape[1], class_names, use_labels and labels.are_vectors
        )

    def __len__(self) -> int:
        return self.num_files * (2 if self._mirror else 1)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.image(index), self.label(index)

    def image(self, index: int) -> np.ndarray:
        """Return a copy of an image, uint8 [channels, height, width]; ValueError if it is broken."""
        file_index = self._file_index(index)
        image = self.cache.pixels[file_index].cpu().numpy() if self.cache else self._decode(file_index)
        return np.array(image[:, :, ::-1] if index >= self.num_files else image, order="C")

    def label(self, index: int) -> np.ndarray:
        """Return a label, float [label_dim]: a one-hot class, or the vector given in dataset.json."""
        return self._labels[self._file_index(index)]

    def cached_batch(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Return images, uint8 [count, channels, height, width], on the device of the cache, and labels on the CPU."""
        assert self.cache is not None
        positions, device = np.asarray(indices), self.cache.pixels.device
        files, is_flipped = positions % self.num_files, positions >= self.num_files
        images = self.cache.pixels.index_select(0, to_device_async(torch.from_numpy(files), device))
        if is_flipped.any():
            mask = to_device_async(torch.from_numpy(is_flipped), device)
            images = torch.where(mask[:, None, None, None], images.flip(3), images)
        return images, torch.from_numpy(self._labels[files])

    def load_or_substitute(self, index: int) -> tuple[np.ndarray, np.ndarray, list[BrokenImage]]:
        """Return an image, its label and [], or those of the next readable image and which images are broken.

        The first image follows the last; a flipped image is replaced by a flipped one. So the replacement depends on the
        data set alone.

        Raises:
            DataError: All images are broken, or more than MAX_BROKEN in a row; the zip or folder is gone or has been
                replaced; an image is not what dataset.json declares.
        """
        first, is_flipped = self._file_index(index), index >= self.num_files
        once_around = itertools.chain(range(first, self.num_files), range(first))
        broken: dict[str, str] = {}
        for file_index in itertools.islice(once_around, MAX_BROKEN + 1):
            try:
                image, label = self[file_index + is_flipped * self.num_files]
            except ValueError as error:
                self._require_sound_data_set(error)
                broken[self._names[file_index]] = " ".join(str(error).split())
            else:
                stand_in = self._names[file_index]
                return image, label, [BrokenImage(*item, stand_in) for item in broken.items()]
        raise too_many_broken_error(self.path, broken)

    def notes(self) -> list[str]:
        """Return lines about files that are not read, classes without images and labels that are not used."""
        notes = self.files.notes()
        if self._is_converted:
            kinds = ("RGB images", "grey") if self._layout.channels == 1 else ("grey images", "RGB")
            notes.append(f"{kinds[0]} of {self.path} are read as {kinds[1]}")
        if self.spec.label_dim:
            empty = self._labels.unused()
            if empty and not self.spec.labels_are_vectors:
                notes.append(f"Warning: empty classes, without images: {format_int_list(empty)}")
            return notes
        try:
            if self.files.label_table:
                notes.append(f"The labels of {self.path} are not used; to train on them, start with --cond=1")
        except ValueError as error:  # only training on labels needs them
            notes.append(f"Labels are not used: {error}")
        return notes

    def labels(self) -> Labels:
        """Return all labels, [len(self), label_dim]."""
        return self._labels.subset(np.arange(len(self)) % self.num_files) if self._mirror else self._labels

    def content_hash(self) -> str:
        """Return a SHA-256 over names and CRC-32 of the images in use, their labels, and mirroring.

        It does not depend on where the data set is or whether it is a zip or a folder.
        """
        return self._hash(f"mirror={self._mirror} labels={self._labels.shape}\n", self._labels.content())

    def pixel_hash(self) -> str:
        """Return a SHA-256 over what determines the decoded images, `cache.pixels`."""
        return self._hash(f"{self.shape} decoded by Pillow {PIL.__version__}\n", ())

    def _hash(self, first: str, last: Iterable[bytes]) -> str:
        digest = hashlib.sha256(first.encode())
        for name, crc in zip(self._names, self._crcs, strict=True):
            digest.update(f"{crc:08x} {name}\n".encode(errors="surrogateescape"))
        for part in last:
            digest.update(part)
        return digest.hexdigest()

    @functools.cached_property
    def _crcs(self) -> list[int]:
        """The CRC-32 of each file, for which a folder is read completely."""
        return self._tree.crcs(self._names)

    def _decode(self, file_index: int) -> np.ndarray:
        name, num_bytes = self._names[file_index], self._num_bytes[file_index]
        return self._tree.pixels(name, self._layout, num_bytes, self._is_exact).transpose(2, 0, 1)

    def _file_index(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {self.path} does not exist, only 0..{len(self) - 1}")
        return index % self.num_files

    def _require_sound_data_set(self, error: ValueError) -> None:
        """Raise DataError if an error concerns the whole data set and not one image."""
        if self.files.declared and isinstance(error.__cause__, LayoutError):
            raise DataError(
                f"{error}. {self._tree.origin(LABEL_FILE)} declares {self.files.declared} for all images: pack the data set "
                f"again with dataset_tool.py"
            ) from error
        try:
            if isinstance(error, ChangedError):
                raise error
            self._tree.check()
        except ChangedError as changed:
            raise DataError(str(changed)) from changed


def _subset(length: int, max_images: int | None, seed: int, path: Path) -> np.ndarray:
    """Return the sorted indices of a random subset; with one seed, smaller subsets are part of larger ones."""
    if max_images is None:
        return np.arange(length)
    if not 1 <= max_images <= length:
        raise ValueError(f"--subset={max_images}: {path} has {length} images; use 1 to {length}")
    return np.sort(np.random.default_rng(np.random.SeedSequence(seed)).permutation(length)[:max_images])


def _read_labels(files: ImageFiles, names: list[str]) -> tuple[Labels, tuple[str, ...]]:
    """Return the labels of these files and the class names."""
    table = files.label_table
    if table is None:
        raise ValueError(
            f"--cond needs labels, but {files.path} has no {LABEL_FILE} with labels; pack the images, one folder per class, "
            f"with dataset_tool.py --labels-from-folders"
        )
    labels = np.array(table.labels_of(names))
    num_classes = max(len(table.class_names), int(labels.max()) + 1) if labels.ndim == 1 else 0
    return Labels(labels, num_classes), table.class_names
