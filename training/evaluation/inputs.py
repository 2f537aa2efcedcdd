"""The images that calc_metrics.py measures, of a network or a folder, and the real ones it compares them with."""

import os

import torch

from dnnlib.archive.image_tree import ImageTree
from dnnlib.files import file_sha256
from dnnlib.paths import user_path
from training.checkpoint.files import CheckpointError
from training.checkpoint.snapshot import load_generator, read_snapshot
from training.checkpoint.state_file import find_state
from training.config import RunConfig
from training.data.dataset import ImageDataset
from training.evaluation.images import FakeSampler, FakeSet, RealSet, reference_dataset

GRIDS = ("grid.png", "grid.jpg", "grid.webp")  # what generate.py --grid may leave beside its images


def real_images(network: str, data: str | None, mirror: bool | None) -> tuple[str, bool, RunConfig]:
    """Return the path of the real images and whether training flips them, from the snapshot unless given; its settings.

    Raises ValueError if the images that it was trained on are not found.
    """
    config, _, _ = read_snapshot(network)
    return data or training_set(network, config), config.data.mirror if mirror is None else mirror, config


def is_training_set(network: str, config: RunConfig, dataset: ImageDataset) -> bool | None:
    """Return whether a network was trained on these images, by content; None where that is not known.

    The training state beside the snapshot records the content; without one, `dataset` is compared with the data set that
    the settings name.
    """
    try:
        saved = find_state(user_path(network).parent, log=lambda line: None)
    except CheckpointError:
        saved = None
    recorded = saved["content_hash"] if saved and saved["config"]["data"] == config.to_dict()["data"] else ""
    trained_on, data = config.data.path, config.data
    try:
        if recorded:
            same_use = ImageDataset(dataset.files, data.cond, data.mirror, data.subset, seed=config.schedule.seed)
            return same_use.content_hash() == recorded
        if trained_on and user_path(trained_on).exists():
            return ImageDataset(trained_on).content_hash() == ImageDataset(dataset.files).content_hash()
    except ValueError:  # such as no labels where it was trained on labels
        return False
    return None


def training_set(network: str, config: RunConfig) -> str:
    """Return the path of the images that a snapshot was trained on; ValueError if they are not found."""
    path = config.data.path
    if path and os.path.exists(os.path.expanduser(path)):  # an empty path is not the current folder
        return path
    where = f"are not at {path} here" if path else "may be anywhere"
    raise ValueError(f"the images that {network} was trained on {where}; name them with --data=PATH")


def open_network(
    network: str, dataset: ImageDataset, device: torch.device | str, ema: float | None = None
) -> FakeSampler:
    """Return the averaged generator of a snapshot, with this half-life or the first, as a source of images."""
    path = user_path(network)
    return FakeSampler(load_generator(path, device, ema), dataset, device, path.name, file_sha256(path))


def open_images(path: str, dataset: ImageDataset, workers: int) -> FakeSet:
    """Return a folder or zip, without grids, as a source of images.

    Grey images become RGB where those of `dataset` are; RGB images whose channels are equal become grey where those are.

    Raises:
        ValueError: Their size is not that of `dataset`, or they are in colour and those of `dataset` grey.
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
    return FakeSet(RealSet(images, workers))


def _is_readable(images: ImageDataset) -> bool:
    """Return whether the first image can be read; colour images cannot be read as grey."""
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
