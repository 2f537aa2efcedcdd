"""The images and labels of a data set."""

import functools
import hashlib
import itertools
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dnnlib.archive.label_table import FILE_NAME, Label, LabelTable
from dnnlib.archive.zip_reader import ChangedError
from dnnlib.images.codec import LayoutError
from training.config import DatasetSpec
from training.data.decoded import Decoded
from training.data.files import MAX_BROKEN, ImageFiles, too_many_broken_error
from training.data.workers import DataError


class BrokenImage(NamedTuple):
    """An image that could not be read, and the one used in its place."""

    name: str  # of its file
    problem: str  # what is wrong with which file
    stand_in: str  # name of the other file


class ImageDataset(Dataset[tuple[np.ndarray, np.ndarray]]):
    """The images of a zip or folder, with their labels if asked for.

    Attributes:
        spec: What the networks must know.
        files: All files of the zip or folder; other data sets can be made of them, without opening it again.
        path: The zip or folder.
        num_files: Images in use, before mirroring.
        shape: Of the images in use, [files, channels, height, width], before mirroring.
        kept: Decoded images, where they need not be read from their files any more; None = none are kept.
        broken: What is wrong with each image, by its name, that `stream` has found broken so far.

    Raises:
        ValueError: No such path, no images in it, images of several sizes or of an unsupported kind, more than
            MAX_BROKEN damaged ones, labels that are missing or do not fit the images.
    """

    def __init__(
        self,
        source: str | Path | ImageFiles,  # a path, or what is opened already
        use_labels: bool = False,  # otherwise labels have length 0
        mirror: bool = False,  # add every image flipped left to right, after all others
        max_images: int | None = None,  # use only so many, drawn by the seed; None = all
        seed: int = 0,  # of that draw only
        left_out: Collection[str] = (),  # names of images that do not belong to it
    ) -> None:
        self.files = source if isinstance(source, ImageFiles) else ImageFiles(source)
        self._tree, self.path = self.files.tree, self.files.path
        self._mirror = mirror
        positions = [position for position, name in enumerate(self.files.names) if name not in left_out]
        names = [self.files.names[position] for position in positions]
        labels, class_names = _labels_of(self.files, names) if use_labels else (_no_labels(len(names)), ())
        chosen = _subset(len(names), max_images, seed, self.path)
        self._names = [names[index] for index in chosen]
        self._labels = labels[chosen]
        self.num_files = len(self._names)
        self._layout = self.files.common_layout(self._names)
        self._num_bytes = self.files.num_bytes[positions][chosen]
        self.shape = (self.num_files, self._layout.channels, self._layout.height, self._layout.width)
        self.cache: Decoded | None = None
        self.broken: dict[str, str] = {}
        self.spec = DatasetSpec(
            self._layout.height,
            self._layout.width,
            self._layout.channels,
            labels.shape[1],
            class_names,
            use_labels and has_vectors(self.files.label_table),
        )

    def __len__(self) -> int:
        return self.num_files * (2 if self._mirror else 1)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.image(index), self.label(index)

    def image(self, index: int) -> np.ndarray:
        """Return an image, uint8 [channels, height, width]; ValueError if it is broken."""
        file_index = self._file_index(index)
        image = None if self.cache is None else self.cache.image(file_index)
        if image is None:
            image = self._decode(file_index)
        return np.array(
            image[:, :, ::-1] if index >= self.num_files else image, order="C"
        )  # a copy, to be changed freely

    def label(self, index: int) -> np.ndarray:
        """Return a label, float [label_dim]: one-hot for a class index, otherwise the vector of the data set."""
        return self._labels[self._file_index(index)]

    def kept_batch(self, indices: list[int]) -> tuple[Tensor, Tensor] | None:
        """Return images, uint8 [count, channels, height, width], and labels of indices if all images are kept.

        The images are on the device where they are kept, the labels on the CPU. None where one has to be read.
        """
        if self.cache is None:
            return None
        positions = np.asarray(indices)
        files = positions % self.num_files
        images = self.cache.get_batch(files, positions >= self.num_files)
        return None if images is None else (images, torch.from_numpy(self._labels[files]))

    def load_or_substitute(
        self, index: int, max_broken: int = MAX_BROKEN
    ) -> tuple[np.ndarray, np.ndarray, list[BrokenImage]]:
        """Return an image, its label and no more, or those of the next readable image and which ones are broken.

        The next one after the last is the first; a flipped image is followed by flipped ones. So what stands in for a
        image follows from the data set alone.

        Raises:
            DataError: All are broken, or more than `max_broken` in a row, or the zip or folder is gone or another one, or
            an image is not what dataset.json declares.
        """
        first, flipped = self._file_index(index), index >= self.num_files
        once_around = itertools.chain(range(first, self.num_files), range(first))
        broken: dict[str, str] = {}
        for file_index in itertools.islice(once_around, max_broken + 1):
            candidate = file_index + flipped * self.num_files
            try:
                image, label = self[candidate]
            except ValueError as error:
                self._require_sound_data_set(error)
                broken[self._names[file_index]] = " ".join(str(error).split())
            else:
                stand_in = self._names[file_index]
                return image, label, [BrokenImage(*item, stand_in) for item in broken.items()]
        raise too_many_broken_error(self.path, broken, max_broken)

    def labels(self) -> np.ndarray:
        """Return all labels, float [len(self), label_dim]."""
        return np.concatenate([self._labels, self._labels]) if self._mirror else self._labels

    def content_hash(self) -> str:
        """Return a SHA-256 over names and contents (their CRC-32) of the images, their labels, and mirroring.

        It depends on what is in use of the data set, not on where it lies or whether it is a zip or a folder.
        """
        digest = hashlib.sha256(f"mirror={self._mirror} labels={self._labels.shape}\n".encode())
        for line in self._content_lines():
            digest.update(line)
        digest.update(self._labels.tobytes())
        return digest.hexdigest()

    def pixel_hash(self) -> str:
        """Return a SHA-256 over what the decoded images follow from; labels and mirroring do not matter."""
        digest = hashlib.sha256(f"{self.shape} decoded by Pillow {PIL.__version__}\n".encode())
        for line in self._content_lines():
            digest.update(line)
        return digest.hexdigest()

    def _content_lines(self) -> Iterator[bytes]:
        for name, crc in zip(self._names, self._crcs, strict=True):
            yield f"{crc:08x} {name}\n".encode(errors="surrogateescape")

    @functools.cached_property
    def _crcs(self) -> list[int]:
        """The CRC-32 of each file's content, for which those of a folder are read from end to end, once."""
        return self._tree.crcs(self._names)

    def _decode(self, file_index: int) -> np.ndarray:
        """Return the image of a file, uint8 [channels, height, width], and keep it where images are kept."""
        is_exact = self.files.declared is not None  # else grey among RGB is allowed
        name, num_bytes = self._names[file_index], self._num_bytes[file_index]
        pixels = self._tree.pixels(name, self._layout, num_bytes, is_exact)
        image = np.array(pixels.transpose(2, 0, 1), order="C")
        if self.cache is not None:
            self.cache.keep(file_index, image)
        return image

    def _file_index(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"there is no image {index} in {self.path}, only 0..{len(self) - 1}")
        return index % self.num_files

    def _require_sound_data_set(self, error: ValueError) -> None:
        """Raise DataError if what went wrong is a matter of the whole data set, not of one image."""
        if self.files.declared and isinstance(error.__cause__, LayoutError):
            raise self.files.contradiction(error) from error
        try:
            if isinstance(error, ChangedError):
                raise error
            self._tree.check()
        except ChangedError as changed:
            raise DataError(str(changed)) from changed


def _subset(length: int, max_images: int | None, seed: int, path: Path) -> np.ndarray:
    """Return which images to use, in their order; with one seed, a smaller choice is part of each larger one."""
    if max_images is None:
        return np.arange(length)
    if not 1 <= max_images <= length:
        raise ValueError(f"a subset of {max_images} images was asked for (--subset), but {path} has {length}")
    return np.sort(np.random.default_rng(np.random.SeedSequence(seed)).permutation(length)[:max_images])


def _no_labels(length: int) -> np.ndarray:
    return np.zeros((length, 0), np.float32)


def _labels_of(files: ImageFiles, names: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the labels of these files, float [files, label_dim], and the class names."""
    table = files.label_table
    if table is None:
        raise ValueError(
            f"{files.path} has no labels in a {FILE_NAME}, but training on labels (--cond) was asked for; pack the "
            f"images, one folder a class, with dataset_tool.py --labels-from-folders"
        )
    return _label_array(table.labels_of(names), len(table.class_names)), table.class_names


def has_vectors(table: LabelTable | None) -> bool:
    """Return whether labels are vectors, not class indices."""
    return table is not None and not isinstance(next(iter(table.by_name.values())), int)


def _label_array(labels: list[Label], num_names: int) -> np.ndarray:
    if not isinstance(labels[0], int):
        return np.array(labels, np.float32)
    indexes = np.array(labels)
    one_hot = np.zeros((len(labels), max(num_names, int(indexes.max()) + 1)), np.float32)
    one_hot[np.arange(len(labels)), indexes] = 1
    return one_hot
