"""What calc_metrics.py judges, a network's images or those of a folder, and the real ones to compare them with."""

import os
from pathlib import Path

import torch

from dnnlib.archive.image_tree import ImageTree
from dnnlib.files import file_sha256
from training.checkpoint.snapshot import load_generator, read_snapshot
from training.config import RunConfig
from training.data.dataset import ImageDataset
from training.evaluation.images import FakeSampler, FakeSet, RealSet, reference_dataset

GRIDS = ("grid.png", "grid.jpg", "grid.webp")  # what generate.py --grid may leave beside its images


def real_images(network: str, data: str | None, mirror: bool | None) -> tuple[str, bool]:
    """The path of the real images, and whether training flips them; from the snapshot unless given.

    Raises ValueError where those that it was trained on are not here.
    """
    config, _, _ = read_snapshot(network)
    return data or training_set(network, config), config.data.mirror if mirror is None else mirror


def training_set(network: str, config: RunConfig) -> str:
    """The path of the images that a snapshot of this configuration was trained on; ValueError where they are not here."""
    path = config.data.path
    if path and os.path.exists(os.path.expanduser(path)):  # an empty path is not the current folder
        return path
    where = f"are not at {path} here" if path else "may be anywhere"
    raise ValueError(f"the images that {network} was trained on {where}; name them with --data=PATH")


def open_network(
    network: str, dataset: ImageDataset, device: torch.device | str, ema: float | None = None
) -> FakeSampler:
    """A snapshot's averaged generator, with this half-life or the first, as a source of images."""
    path = Path(network).expanduser()
    return FakeSampler(load_generator(path, device, ema), dataset, device, path.name, file_sha256(path))


def open_images(path: str, dataset: ImageDataset, workers: int) -> FakeSet:
    """A folder or zip as a source of images, without grids of them; ValueError unless they are as those of `dataset`."""
    images = reference_dataset(path, left_out=grids_in(path))
    ours, theirs = images.spec, dataset.spec
    if (ours.width, ours.height, ours.channels) != (theirs.width, theirs.height, theirs.channels):
        raise ValueError(
            f"--images={path} has images of {ours.width}x{ours.height} px with {ours.channels} channels, --data has "
            f"{theirs.width}x{theirs.height} px with {theirs.channels}; they must agree."
        )
    return FakeSet(RealSet(images, workers))


def grids_in(path: str) -> list[str]:
    """The grids of generate.py among images: those of their names that are of another size than the others."""
    tree = ImageTree(path)
    names = tree.image_names()
    others = [name for name in names if name not in GRIDS]
    if not others or len(others) == len(names):
        return []
    size = next((size for name in others if (size := size_of(tree, name))), None)
    return [name for name in GRIDS if name in names and size_of(tree, name) not in (size, None)]


def size_of(tree: ImageTree, name: str) -> tuple[int, int] | None:
    """Width and height of an image; None where that cannot be read."""
    try:
        layout = tree.layout(name)
    except ValueError:  # whoever reads it will say what is wrong
        return None
    return layout.width, layout.height
