"""The images that calc_metrics.py measures, of a network or a folder, and the real ones it compares them with."""

import os
from pathlib import Path

import torch

from dnnlib.archive.image_tree import ImageTree
from dnnlib.files import file_sha256
from dnnlib.paths import user_path
from training.checkpoint.files import CheckpointError
from training.checkpoint.snapshot import load_generator, read_snapshot
from training.checkpoint.state_file import find_state
from training.config import RunConfig
from training.data.dataset import ImageDataset
from training.evaluation.images import FakeSampler, FakeSet, reference_dataset

GRIDS = ("grid.png", "grid.jpg", "grid.webp")  # what generate.py --grid may leave beside its images


def real_images(network: str, data: str | None, mirror: bool | None) -> tuple[str, bool]:
    """Return the path of the real images and whether training flips them, from the snapshot unless given.

    Raises ValueError if the images that it was trained on are not found.
    """
    config, _, _ = read_snapshot(network)
    return training_set(network, config) if data is None else data, config.data.mirror if mirror is None else mirror


def is_training_set(network: str, dataset: ImageDataset) -> bool | None:
    """Return whether a network was trained on these images, by content; None where that is not known.

    The snapshot records the content, or, of older versions, the training state beside it. An empty path: not known.
    """
    if not network:
        return None
    config, _, values = read_snapshot(network)
    recorded, data = values.get("content_hash") or hash_in_state(user_path(network).parent, config), config.data
    if not recorded:
        return None
    try:
        same_use = ImageDataset(dataset.files, data.cond, data.mirror, data.subset, seed=config.schedule.seed)
        return same_use.content_hash() == recorded
    except ValueError:  # such as no labels where it was trained on labels
        return False


def hash_in_state(run_dir: Path, config: RunConfig) -> str:
    """Return the hash of the data set in the training state of a run; empty if there is none of these settings."""
    try:
        saved = find_state(run_dir, log=lambda line: None)
    except CheckpointError:
        return ""
    return str(saved["content_hash"]) if saved and saved["config"]["data"] == config.to_dict()["data"] else ""


def describe_relation(is_training_set: bool | None, dataset: ImageDataset, config: RunConfig | None) -> str:
    """Return what images are to a network that was trained with these settings."""
    unused = dataset.num_files - ((config and config.data.subset) or dataset.num_files)
    return {
        True: f"the training set, with {unused:,} images that were not used" if unused else "the training set",
        False: "NOT what the network was trained on",
        None: "whether the network was trained on them is not known",
    }[is_training_set]


def training_set(network: str, config: RunConfig) -> str:
    """Return the path of the images that a snapshot was trained on; ValueError if they are not found."""
    path = config.data.path
    if path and os.path.exists(os.path.expanduser(path)):  # an empty path is not the current folder
        return path
    where = f"are not at {os.path.abspath(user_path(path))}" if path else "may be anywhere"
    raise ValueError(f"the images that {network} was trained on {where}; name them with --data=PATH")


def open_network(
    network: str, dataset: ImageDataset, device: torch.device | str, ema: float | None = None
) -> FakeSampler:
    """Return the averaged generator of a snapshot, with this half-life or the first, as a source of images."""
    path = user_path(network)
    return FakeSampler(load_generator(path, device, ema), dataset, path.name, file_sha256(path))


def open_images(path: str, dataset: ImageDataset, workers: int) -> FakeSet:
    """Return a folder or zip, without grids, as a source of images.

    Grey images become RGB where those of `dataset` are; RGB images whose channels are equal become grey where those are.
    Raises ValueError where their size is not that of `dataset`, or they are in colour and those of `dataset` grey.
    """
    grids = grids_in(path)
    images = reference_dataset(path, left_out=grids)
    ours, theirs = images.spec, dataset.spec
    is_fitting = (ours.width, ours.height) == (theirs.width, theirs.height)
    if is_fitting and ours.channels != theirs.channels:
        images = reference_dataset(images.files, left_out=grids, channels=theirs.channels)
        is_fitting = theirs.channels == 3 or _is_readable(images)
    if not is_fitting:
        raise ValueError(
            f"--images={path} has images of {ours.width}x{ours.height} px with {ours.channels} channels, --data has "
            f"{theirs.width}x{theirs.height} px with {theirs.channels}; they must agree."
        )
    return FakeSet(images, workers, dataset.spec.class_names)


def _is_readable(images: ImageDataset) -> bool:
    try:
        images.image(0)
    except ValueError:
        return False
    return True


def grids_in(path: str) -> list[str]:
    """Return the grids of generate.py among images: those of GRIDS whose size differs from that of the other images."""
    tree = ImageTree(path)
    names = tree.image_names()
    grids = [name for name in names if name in GRIDS]
    if not grids or len(grids) == len(names):
        return []
    layout = tree.layout(next(name for name in names if name not in GRIDS))
    layouts = {name: tree.layout(name) for name in grids}
    return [name for name in grids if (layouts[name].width, layouts[name].height) != (layout.width, layout.height)]
