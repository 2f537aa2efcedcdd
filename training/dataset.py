"""A data set's pictures and labels, and the endless stream of micro-batches that training takes from it."""

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dnnlib.label_table import FILE_NAME, Label, read_label_table
from dnnlib.picture import Layout, common_layout
from dnnlib.picture_tree import PictureTree
from training.config import DatasetSpec


class ImageDataset(Dataset[tuple[np.ndarray, np.ndarray]]):
    """The pictures of a zip or folder, with their labels if asked for.

    Attributes:
        spec: What the networks must know.
        path: The zip or folder.
        num_files: Pictures in use, before mirroring.

    Raises:
        ValueError: No such path, no pictures in it, pictures of several sizes or of an unsupported kind, labels that
            are missing or do not fit the pictures.
    """

    def __init__(
        self,
        path: str | Path,
        use_labels: bool = False,  # otherwise labels have length 0
        mirror: bool = False,  # add every picture flipped left to right, after all others
        max_images: int | None = None,  # use only so many, drawn by the seed; None = all
        seed: int = 0,  # of that draw only
    ) -> None:
        self._tree = PictureTree(path)
        self._mirror = mirror
        self.path = self._tree.path
        names = self._tree.picture_names()
        labels, class_names = _read_labels(self._tree, names) if use_labels else (_no_labels(len(names)), ())
        chosen = _subset(len(names), max_images, seed, self.path)
        self._names = [names[index] for index in chosen]
        self._labels = labels[chosen]
        self.num_files = len(self._names)
        self._layout = _find_layout(self._tree, self._names)
        self.spec = DatasetSpec(
            self._layout.height, self._layout.width, self._layout.channels, labels.shape[1], class_names
        )

    def __len__(self) -> int:
        return self.num_files * (2 if self._mirror else 1)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.image(index), self.label(index)

    def image(self, index: int) -> np.ndarray:
        """Return a picture, uint8 [channels, height, width]."""
        pixels = self._tree.pixels(self._names[self._file_index(index)], self._layout)
        flipped = pixels[:, ::-1] if index >= self.num_files else pixels
        return np.array(flipped.transpose(2, 0, 1), order="C")  # a copy: decoded grey pictures are read-only

    def label(self, index: int) -> np.ndarray:
        """Return a label, float [label_dim]: one-hot for a class index, otherwise the vector of the data set."""
        return self._labels[self._file_index(index)]

    def labels(self) -> np.ndarray:
        """Return all labels, float [len(self), label_dim]."""
        return np.concatenate([self._labels, self._labels]) if self._mirror else self._labels

    def content_hash(self) -> str:
        """Return a SHA-256 over names and contents (their CRC-32) of the pictures, their labels, and mirroring.

        It depends on what is in use of the data set, not on where it lies or whether it is a zip or a folder.
        """
        digest = hashlib.sha256(f"mirror={self._mirror} labels={self._labels.shape}\n".encode())
        for name in self._names:
            digest.update(f"{self._tree.crc(name):08x} {name}\n".encode())
        digest.update(self._labels.tobytes())
        return digest.hexdigest()

    def _file_index(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"there is no picture {index} in {self.path}, only 0..{len(self) - 1}")
        return index % self.num_files


def order(seed: int, start_nimg: int, length: int) -> Iterator[int]:
    """Yield without end the positions, 0..length-1, of the images from global image index `start_nimg` on.

    Each epoch of `length` images is a permutation of its own that follows from (seed, epoch) alone, so the order does
    not depend on where a run started.
    """
    epoch, position = divmod(start_nimg, length)
    while True:
        permutation = np.random.default_rng(np.random.SeedSequence((seed, epoch))).permutation(length)
        yield from permutation[position:].tolist()
        epoch, position = epoch + 1, 0


def stream(
    dataset: ImageDataset,
    *,
    seed: int,
    start_nimg: int,
    batch_size: int,
    micro_batch: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return the endless micro-batches of one rank: uint8 [micro_batch, channels, height, width] and float labels.

    A step takes the next `batch_size` images of `order` and cuts them into micro-batches; micro-batch k goes to rank
    k % world_size. So it holds the same pictures however many ranks there are, and wherever the run was resumed.

    Args:
        dataset: Where the pictures are.
        seed: Of the order.
        start_nimg: Images that the run has seen so far, over all ranks.
        batch_size: Images a step, over all ranks.
        micro_batch: Images a rank handles at once.
        rank: This process's place among the `world_size` ones.
        world_size: Number of ranks.
        num_workers: Processes that read ahead; 0 = read in this one.
        device: Where the tensors go.
    """
    if micro_batch < 1 or batch_size < 1 or batch_size % (micro_batch * world_size):
        raise ValueError(
            f"a batch of {batch_size} cannot be cut into micro-batches of {micro_batch} for {world_size} ranks; "
            f"--batch must be a multiple of --batch-gpu times --gpus"
        )
    device = torch.device(device)
    loader = DataLoader(
        dataset,
        batch_sampler=_micro_batches(order(seed, start_nimg, len(dataset)), batch_size, micro_batch, rank, world_size),
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # otherwise starting the workers would draw from the global one
    )
    return ((images.to(device, non_blocking=True), labels.to(device, non_blocking=True)) for images, labels in loader)


def _micro_batches(
    indices: Iterator[int], batch_size: int, micro_batch: int, rank: int, world_size: int
) -> Iterator[list[int]]:
    while True:
        batch = list(itertools.islice(indices, batch_size))
        for start in range(rank * micro_batch, batch_size, world_size * micro_batch):
            yield batch[start : start + micro_batch]


def _subset(length: int, max_images: int | None, seed: int, path: Path) -> np.ndarray:
    """Return which pictures to use, in their order; with one seed, a smaller choice is part of each larger one."""
    if max_images is None:
        return np.arange(length)
    if not 1 <= max_images <= length:
        raise ValueError(f"a subset of {max_images} pictures was asked for (--subset), but {path} has {length}")
    return np.sort(np.random.default_rng(np.random.SeedSequence(seed)).permutation(length)[:max_images])


def _find_layout(tree: PictureTree, names: list[str]) -> Layout:
    return common_layout(map(tree.origin, names), map(tree.layout, names))


def _no_labels(length: int) -> np.ndarray:
    return np.zeros((length, 0), np.float32)


def _read_labels(tree: PictureTree, names: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the labels of these files, float [files, label_dim], and the class names."""
    table = read_label_table(tree)
    if table is None:
        raise ValueError(
            f"{tree.path} has no labels in a {FILE_NAME}, but training on labels (--cond) was asked for; pack the "
            f"pictures, one folder a class, with dataset_tool.py --labels-from-folders"
        )
    return _label_array(table.labels_of(names), len(table.class_names)), table.class_names


def _label_array(labels: list[Label], num_names: int) -> np.ndarray:
    if not isinstance(labels[0], int):
        return np.array(labels, np.float32)
    indexes = np.array(labels)
    return np.eye(max(num_names, int(indexes.max()) + 1), dtype=np.float32)[indexes]
