"""From the pictures of a source to those of a data set: checked, cropped, resized and encoded by several processes."""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from dnnlib.archive.label_table import Label
from dnnlib.archive.zip_reader import ChangedError
from dnnlib.images import codec as picture
from dnnlib.images.codec import Color, Layout
from dnnlib.packing.transform import PictureTransform
from dnnlib.parallel import ordered_map
from dnnlib.sources.source_images import ImageSource, SourcePicture

Result = TypeVar("Result")
Encoded = tuple[bytes, Label | None]  # a PNG file and its label

_CHUNK = 64  # pictures sent to a process at once
_CHUNK_PX = 2**20  # fewer of larger ones


@dataclass(frozen=True)
class Recipe:
    """What is done to every picture."""

    transform: PictureTransform
    background: Color | None  # behind transparent ones; None = they are refused


class Progress(Protocol):
    """Hands items through and shows how many of the total have passed."""

    def __call__(self, items: Iterable[Result], total: int, title: str) -> Iterable[Result]: ...


class Packer:
    """Takes the pictures of a source through a recipe; the result does not depend on the number of processes.

    Attributes:
        skipped: What was wrong with each picture left out, bad headers first; empty unless `skip_bad`.
        num_enlarged: Pictures that are smaller than what is made of them.
    """

    def __init__(
        self,
        images: ImageSource,
        recipe: Recipe,
        workers: int,  # processes
        skip_bad: bool,  # leave pictures out that cannot be used; otherwise the first one raises ValueError
        progress: Progress,
    ) -> None:
        self.skipped: list[str] = []
        self.num_enlarged = 0
        self._images, self._recipe = images, recipe
        self._workers = min(workers, images.count)
        self._skip_bad = skip_bad
        self._progress = progress
        self._pictures: Callable[[], Iterable[SourcePicture]] = images.pictures
        self._count = images.count
        self._chunk = _CHUNK

    def find_layout(self) -> Layout:
        """Return the layout of the new pictures; those whose header is bad are out from here on.

        Raises:
            ValueError: A picture that cannot be used, pictures of several sizes, or none left.
        """
        transform = self._recipe.transform
        known = self._images.layout
        if known:
            self._check_known(known)
            output = transform.output(known)
            self._chunk = min(_chunk_size(known), _chunk_size(output))
            self.num_enlarged = self._count if transform.enlarges(known) else 0
            return output
        layouts = self._layouts()
        self.num_enlarged = sum(map(transform.enlarges, layouts))
        origins = (source_picture.origin for source_picture in self._pictures())
        output = picture.common_layout(origins, layouts, transform.output)
        self._chunk = min(_chunk_size(layouts[0]), _chunk_size(output))
        return output

    def encoded(self, layout: Layout) -> Iterator[Encoded]:
        """Yield the new pictures, all of this layout, with their labels.

        Raises:
            ValueError: A picture that cannot be used, or none left.
            ChangedError: The source has gone or been replaced meanwhile.
        """
        job = functools.partial(encode, self._recipe, layout)
        count = 0
        for result in self._map(job, "Packing", self._chunk):
            if isinstance(result, ValueError):
                self.skipped.append(str(result))
            else:
                count += 1
                yield result
        if self.skipped:
            self._images.check()
        self._require_some(count)

    def _check_known(self, layout: Layout) -> None:
        """Raise ValueError if the recipe does not suit pictures that all have this layout."""
        try:
            self._recipe.transform.check(layout)
        except ValueError as error:
            raise ValueError(f"{next(iter(self._pictures())).origin} {error}") from error

    def _require_some(self, count: int) -> None:
        if count == 0:
            raise ValueError(f"none of the {self._images.count:,} pictures can be used; {self.skipped[0]}")

    def _layouts(self) -> list[Layout]:
        """Return the layouts of the pictures that stay."""
        kept, layouts = [], []
        job = functools.partial(_layout, self._recipe)
        for source_picture, result in zip(self._pictures(), self._map(job, "Checking", _CHUNK), strict=True):
            if isinstance(result, ValueError):
                self.skipped.append(str(result))
            else:
                kept.append(source_picture)
                layouts.append(result)
        self._require_some(len(kept))
        self._pictures, self._count = lambda: kept, len(kept)
        return layouts

    def _map(self, job: Callable[[SourcePicture], Result], title: str, chunk: int) -> Iterable[Result | ValueError]:
        """Yield what the job returns for each picture, or its error where bad pictures are left out."""
        guarded_job = functools.partial(_attempt if self._skip_bad else _insist, job)
        results = ordered_map(guarded_job, self._pictures(), self._workers, chunk)
        return self._progress(results, self._count, title)


def encode(recipe: Recipe, layout: Layout, source_picture: SourcePicture) -> Encoded:
    """Return a picture as a PNG file with exactly this layout, and its label; ValueError if it cannot be."""
    original = source_picture.pixels(layout.channels, recipe.background)
    try:
        pixels = recipe.transform.apply(original)
        picture.check_layout(pixels, layout)
    except ValueError as error:
        raise ValueError(f"{source_picture.origin} {error}") from error
    return picture.encode_png(pixels), source_picture.label


def _layout(recipe: Recipe, source_picture: SourcePicture) -> Layout:
    layout = source_picture.layout(recipe.background)
    try:
        recipe.transform.check(layout)
    except ValueError as error:
        raise ValueError(f"{source_picture.origin} {error}") from error
    return layout


def _attempt(job: Callable[[SourcePicture], Result], source_picture: SourcePicture) -> Result | ValueError:
    try:
        return job(source_picture)
    except ChangedError:  # it is not this picture that is bad
        raise
    except ValueError as error:
        return ValueError(str(error))  # without the traceback, which cannot be sent


def _insist(job: Callable[[SourcePicture], Result], source_picture: SourcePicture) -> Result:
    try:
        return job(source_picture)
    except ValueError as error:
        raise ValueError(f"{error}. Or leave out such files with --on-error=skip") from error


def _chunk_size(layout: Layout) -> int:
    return max(1, min(_CHUNK, _CHUNK_PX // max(layout.width * layout.height, 1)))
