"""The training images nearest to generated ones, and how near those are to each other: is a network memorising?"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from dnnlib.images.captions import sheet
from dnnlib.images.writer import write_image
from sampling.renderer import device_of
from training.checkpoint.snapshot import load_discriminator
from training.data.dataset import ImageDataset
from training.evaluation.finite import require_finite
from training.evaluation.images import check_size
from training.evaluation.inputs import describe_relation, is_training_set, training_set
from training.networks.generator import Generator

COPY_RATIO = 0.5  # below it a generated image is suspiciously near to a real one
_EQUAL = 1e-10  # squared distance, relative to the squared length of the query, of rows that differ by rounding only
_BATCH_PX = 256 * 32 * 32  # pixels of the real images that are in memory at once


def nearest(
    queries: Tensor, batches: Iterable[Tensor], count: int, excluded: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Distances, float64 [queries, count], and indices of the nearest rows of a set, which comes in batches [rows, dim].

    Equal distances are in the order of the set. Those of whole numbers, such as pixels, are exact up to their root.
    `excluded` are indices to skip for each query, [queries, any number]; then rows equal to the query are skipped too.
    Raises ValueError if the set has too few rows.
    """
    queries = queries.double()
    squares = queries.square().sum(dim=1, keepdim=True)
    distances, indices = squares[:, :0], squares[:, :0].long()
    start = 0
    for batch in batches:
        rows = batch.double()
        here = torch.arange(start, start + len(rows), device=queries.device).expand(len(queries), -1)
        found = (squares + rows.square().sum(dim=1) - 2 * queries @ rows.T).clamp(min=0)
        if excluded is not None:
            found[(here[:, :, None] == excluded[:, None, :]).any(dim=2) | (found <= _EQUAL * squares)] = torch.inf
        distances, indices = torch.cat([distances, found], dim=1), torch.cat([indices, here], dim=1)
        distances, order = distances.sort(dim=1, stable=True)
        distances, indices = distances[:, :count], indices.gather(1, order[:, :count])
        start += len(rows)
    is_short = distances.shape[1] < count or bool(distances.isinf().any())
    if is_short and excluded is not None:
        raise ValueError(
            f"all real images ({start}) are equal to the nearest one or its flipped copy: there is no distance to compare "
            f"with; give a data set with more images: --data=PATH"
        )
    if is_short:
        raise ValueError(f"the data set has only {start} images, too few for --count={count}; use a smaller --count")
    return distances.sqrt(), indices


@dataclass(frozen=True)
class Description:
    """What of images is compared."""

    what: str  # the distance, as printed
    rows: Callable[[Tensor], Tensor]  # uint8 [n, channels, height, width] to [n, dim]
    scale: float  # from the Euclidean distance of rows to the distance shown


def describe(network: str, generator: Generator, by: str) -> Description:
    """The description that --by names: pixels, or the last feature map of the snapshot's discriminator, of length 1."""
    if by == "pixels":
        values = generator.img_channels * generator.img_height * generator.img_width
        return Description("RMS difference of the pixels, 0..255", lambda images: images.flatten(1), values**-0.5)
    device = device_of(generator)
    discriminator = load_discriminator(network, device)

    @torch.no_grad()
    def rows(images: Tensor) -> Tensor:
        maps = discriminator.features(images.to(device).float() / 127.5 - 1)
        return require_finite(F.normalize(maps[-1].flatten(1)), "the features of the network's discriminator").cpu()

    return Description("distance of the discriminator's features, 0..2", rows, 1.0)


def open_real(network: str, generator: Generator, data: str | None, mirror: bool | None) -> ImageDataset:
    """The images to compare with: by default the training set, flipped if training flipped it; prints which.

    Raises ValueError if they are missing or differ from the network in size or channels.
    """
    config = generator.run_config
    assert config is not None, "loaded from a snapshot"
    path = training_set(network, config) if data is None else data
    subset = config.data.subset if data is None else None
    mirror = config.data.mirror if mirror is None else mirror
    dataset = ImageDataset(path, mirror=mirror, max_images=subset, seed=config.schedule.seed)
    check_size(generator, dataset)
    relation = describe_relation(is_training_set(generator.snapshot, dataset), dataset, config)
    print(f"Real images: {dataset.path.resolve()}, {relation}")
    return dataset


@dataclass(frozen=True)
class RealNeighbours:
    """The nearest real images of generated ones, nearest first."""

    indices: Tensor  # in the data set, [generated, count]
    distances: Tensor  # [generated, count]
    own: Tensor  # from each of these real images to its nearest other one, [generated, count]

    @property
    def ratios(self) -> Tensor:
        """Distance to the nearest real image over that from this one to its nearest other; far below 1 for a copy."""
        return self.distances[:, 0] / self.own[:, 0].clamp(min=1e-12)


def find_real_neighbours(
    generated: Tensor, dataset: ImageDataset, count: int, description: Description
) -> RealNeighbours:
    """Read a data set twice: for the nearest images of each generated one, then for the nearest of those.

    Generated images are uint8 [generated, channels, height, width]; one batch of real ones is in memory. A real image's own
    flipped copy and its duplicates do not count as its neighbours. Raises ValueError if there are too few images.
    """
    part = max(_BATCH_PX // (dataset.spec.height * dataset.spec.width), 1)
    with tqdm(total=2 * len(dataset), unit=" images", disable=None) as bar:
        rows = torch.cat([description.rows(images) for images in generated.split(part)])
        distances, indices = nearest(rows, rows_of(dataset, description, part, bar), count)
        chosen = indices.flatten()
        themselves = torch.stack([chosen, (chosen + dataset.num_files) % len(dataset)], dim=1)
        queries = torch.cat([description.rows(read(dataset, some.tolist())) for some in chosen.split(part)])
        own, _ = nearest(queries, rows_of(dataset, description, part, bar), 1, excluded=themselves)
    scale = description.scale
    return RealNeighbours(indices, distances * scale, own.view(indices.shape) * scale)


def read(dataset: ImageDataset, indices: Iterable[int]) -> Tensor:
    """Images of a data set, uint8 [n, channels, height, width]; the next readable one in place of a broken one.

    Each broken one is printed once.
    """
    images = []
    for index in indices:
        image, _, broken = dataset.load_or_substitute(index)
        images.append(image)
        for name, problem, stand_in in broken:
            if name not in dataset.broken:
                dataset.broken[name] = problem
                tqdm.write(f"Warning: {problem}; {stand_in} is used in its place")
    return torch.from_numpy(np.stack(images))


def rows_of(dataset: ImageDataset, description: Description, batch: int, bar: tqdm) -> Iterator[Tensor]:
    """Yield the rows of all images of a data set in batches."""
    for start in range(0, len(dataset), batch):
        indices = range(start, min(start + batch, len(dataset)))
        yield description.rows(read(dataset, indices))
        bar.update(len(indices))


def write_neighbours(
    generated: Tensor, names: Sequence[str], dataset: ImageDataset, count: int, description: Description, outdir: Path
) -> None:
    """Write nearest.png and print the distances of generated images, uint8 [generated, channels, height, width]."""
    result = find_real_neighbours(generated, dataset, count, description)
    path = outdir / "nearest.png"
    write_image(path, neighbour_sheet(generated, names, dataset, result))
    print(summary(names, result, description))
    print(f"Side by side: {path}")


def neighbour_sheet(
    generated: Tensor, names: Sequence[str], dataset: ImageDataset, result: RealNeighbours
) -> np.ndarray:
    """A row for each generated image: itself, then its nearest real ones with their distances; uint8 [h, w, 3]."""
    rows = []
    for image, name, indices, distances in zip(generated, names, result.indices, result.distances, strict=True):
        images = torch.cat([image.unsqueeze(0), read(dataset, indices.tolist())]).permute(0, 2, 3, 1).numpy()
        rows.append(list(zip(images, [name, *(f"{distance:.3g}" for distance in distances.tolist())], strict=True)))
    return sheet(rows)


def summary(names: Sequence[str], result: RealNeighbours, description: Description) -> str:
    """A line per generated image, the medians, and the number of possible copies."""
    columns = [result.distances[:, 0].tolist(), result.own[:, 0].tolist(), result.ratios.tolist()]
    lines = [
        f"Distances: {description.what}.",
        "generated    to the nearest real    from that to its own nearest    ratio",
    ]
    rows = [*zip(names, *columns, strict=True), ("median", *map(median, columns))]
    lines += [f"{name:<12} {distance:>19.4g}    {own:>27.4g}    {ratio:>5.2f}" for name, distance, own, ratio in rows]
    copies = int((result.ratios < COPY_RATIO).sum())
    lines.append(
        f"{copies} of {len(names)} have a ratio below {COPY_RATIO:g}: "
        f"{'look at those, they may be copies' if copies else 'no sign of memorising'}."
    )
    return "\n".join(lines)
