"""The nearest training images of generated ones, and how near those are to each other: is a network memorising?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sampling.embeddings import feature_maps
from sampling.nearest import nearest
from training.checkpoint.snapshot import read_snapshot
from training.data.dataset import ImageDataset
from training.evaluation.inputs import training_set
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator

_BATCH_PX = 256 * 32 * 32  # pixels of the real images that are in memory at once


@dataclass(frozen=True)
class Description:
    """What of images is compared."""

    what: str  # the distance is, for people
    rows: Callable[[Tensor], Tensor]  # of images, uint8 [n, channels, height, width]: [n, dim]
    scale: float  # from the Euclidean distance of rows to the distance shown


def pixel_description(generator: Generator) -> Description:
    """Pixels as they are: their distances are exact, and 0 is a copy."""
    values = generator.img_channels * generator.img_height * generator.img_width
    return Description("RMS difference of the pixels, 0..255", lambda images: images.flatten(1), values**-0.5)


def discriminator_description(discriminator: Discriminator, device: torch.device) -> Description:
    """The last feature map of a snapshot's own discriminator, scaled to length 1: what is roughly where."""

    @torch.no_grad()
    def rows(images: Tensor) -> Tensor:
        maps = feature_maps(discriminator, images.to(device).float() / 127.5 - 1)
        return F.normalize(maps[-1].flatten(1)).cpu()

    return Description("distance of the discriminator's features, 0..2", rows, 1.0)


@dataclass(frozen=True)
class RealNeighbours:
    """The nearest real images of generated ones."""

    indices: Tensor  # in the data set, [generated, count]
    distances: Tensor  # by increasing distance, [generated, count]
    own: Tensor  # from each of these real images to its nearest other one, [generated, count]

    @property
    def ratios(self) -> Tensor:
        """How far the nearest real image is, over how far that one is from its own nearest other, [generated].

        Well below 1 for an image that is a copy of a training image.
        """
        return self.distances[:, 0] / self.own[:, 0].clamp(min=1e-12)


def open_real(network: str, generator: Generator, data: str | None, mirror: bool | None) -> ImageDataset:
    """The images to compare with: those that a snapshot was trained on, flipped if it flipped them, unless said otherwise.

    Raises ValueError where they are not here, or not of the network's size and colours.
    """
    config = read_snapshot(network)[0]
    trained = config.data
    path = data or training_set(network, config)
    subset = None if data else trained.subset
    mirror = trained.mirror if mirror is None else mirror
    dataset = ImageDataset(path, mirror=mirror, max_images=subset, seed=config.schedule.seed)
    spec = dataset.spec
    if (spec.width, spec.height, spec.channels) != (generator.img_width, generator.img_height, generator.img_channels):
        raise ValueError(
            f"the network makes images of {generator.img_width}x{generator.img_height} px with {generator.img_channels} "
            f"channels, but those in {dataset.path} have {spec.width}x{spec.height} px and {spec.channels} channels; give "
            f"the data set that it was trained on"
        )
    return dataset


def find_real_neighbours(
    generated: Tensor, dataset: ImageDataset, count: int, description: Description, watch: Callable[[int], object]
) -> RealNeighbours:
    """Go through a data set twice: for the nearest images of each generated one, then for the nearest of those.

    Neither a real image's own flipped copy nor a duplicate of it is one of its neighbours.

    Args:
        generated: uint8 [generated, channels, height, width].
        dataset: The real images, flipped ones too where it mirrors; of it a batch at a time is in memory.
        count: Neighbours of each.
        description: What is compared.
        watch: Gets the number of real images per batch.

    Raises:
        ValueError: The data set has too few images.
    """
    if count > len(dataset):
        raise ValueError(
            f"the data set has only {len(dataset)} images, too few for the {count} nearest ones of each; take fewer"
        )
    part = batch_size(dataset)
    rows = torch.cat([description.rows(images) for images in generated.split(part)])
    found = nearest(rows, rows_of(dataset, description, watch), count)
    chosen = found.indices.flatten()
    themselves = torch.stack([chosen, (chosen + dataset.num_files) % len(dataset)], dim=1)
    queries = torch.cat([description.rows(read(dataset, indices.tolist())) for indices in chosen.split(part)])
    others = nearest(queries, rows_of(dataset, description, watch), 1, excluded=themselves)
    own = others.distances.view(found.indices.shape)
    return RealNeighbours(found.indices, found.distances * description.scale, own * description.scale)


def batch_size(dataset: ImageDataset) -> int:
    """How many images are in memory, and in the discriminator, at once."""
    return max(_BATCH_PX // (dataset.spec.height * dataset.spec.width), 1)


def read(dataset: ImageDataset, indices: list[int]) -> Tensor:
    """Images of a data set, uint8 [n, channels, height, width]; the next readable one where one is broken."""
    return torch.from_numpy(np.stack([dataset.load_or_substitute(index)[0] for index in indices]))


def rows_of(dataset: ImageDataset, description: Description, watch: Callable[[int], object]) -> Iterator[Tensor]:
    """Yield the rows of all images of a data set in its order, a batch at a time."""
    batch = batch_size(dataset)
    for start in range(0, len(dataset), batch):
        stop = min(start + batch, len(dataset))
        yield description.rows(read(dataset, list(range(start, stop))))
        watch(stop - start)
