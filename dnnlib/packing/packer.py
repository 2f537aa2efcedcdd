"""Converts the images of a source to those of a data set: checks, crops, resizes and encodes them in several processes."""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from tqdm import tqdm

from dnnlib.archive.label_table import Label
from dnnlib.archive.zip_reader import ChangedError
from dnnlib.images import codec as image
from dnnlib.images.codec import Layout
from dnnlib.packing.transform import ImageTransform
from dnnlib.parallel import ordered_map
from dnnlib.sources.source_images import ImageSource, SourceImage, named

Result = TypeVar("Result")
Encoded = tuple[bytes, Label | None]  # a PNG file and its label

_CHUNK = 64  # images sent to a process at once
_CHUNK_PX = 2**20  # fewer of larger ones


@dataclass
class Packer:
    """Converts the images of a source; the result does not depend on the number of processes."""

    source: ImageSource
    transform: ImageTransform
    workers: int  # processes
    skip_bad: bool  # skip unusable images; otherwise the first one raises ValueError
    skipped: list[str] = field(default_factory=list, init=False)  # what is wrong with skipped images, bad headers first
    num_enlarged: int = field(default=0, init=False)  # images that are smaller than the output
    num_stretched: int = field(default=0, init=False)  # images of another aspect ratio

    def __post_init__(self) -> None:
        self._images: Callable[[], Iterable[SourceImage]] = self.source.images
        self._count = self.source.count
        self._chunk = _CHUNK

    def find_layout(self) -> Layout:
        """Return the layout of the new images; images with a bad header are skipped from here on.

        Raises ValueError: an unusable image, images of several sizes, or none left.
        """
        if known := self.source.layout:
            with named(next(iter(self._images())).origin):
                self.transform.check(known)
            output = self.transform.output(known)
            self._chunk = min(_chunk_size(known), _chunk_size(output))
            self.num_enlarged = self._count * self.transform.enlarges(known)
            self.num_stretched = self._count * self.transform.stretches(known)
            return output
        layouts = self._layouts()
        self.num_enlarged = sum(map(self.transform.enlarges, layouts))
        self.num_stretched = sum(map(self.transform.stretches, layouts))
        origins = (source_image.origin for source_image in self._images())
        output = image.common_layout(origins, layouts, self.transform.output)
        self._chunk = min(_chunk_size(layouts[0]), _chunk_size(output))
        return output

    def encoded(self, layout: Layout) -> Iterator[Encoded]:
        """Yield the new images, all of this layout, with their labels.

        Raises:
            ValueError: An unusable image, or none left.
            ChangedError: The source is gone or was replaced.
        """
        job = functools.partial(encode, self.transform, layout)
        count = 0
        for result in self._map(job, "Packing", self._chunk):
            if isinstance(result, ValueError):
                self.skipped.append(str(result))
            else:
                count += 1
                yield result
        if self.skipped:
            self.source.check()
        self._require_some(count)

    def _require_some(self, count: int) -> None:
        if count == 0:
            raise ValueError(f"none of the {self.source.count:,} images is usable; {self.skipped[0]}")

    def _layouts(self) -> list[Layout]:
        kept, layouts = [], []
        job = functools.partial(_layout, self.transform)
        for source_image, result in zip(self._images(), self._map(job, "Checking", _CHUNK), strict=True):
            if isinstance(result, ValueError):
                self.skipped.append(str(result))
            else:
                kept.append(source_image)
                layouts.append(result)
        self._require_some(len(kept))
        self._images, self._count = lambda: kept, len(kept)
        return layouts

    def _map(self, job: Callable[[SourceImage], Result], title: str, chunk: int) -> Iterable[Result | ValueError]:
        """Yield the result of the job for each image, or its error if bad images are skipped."""
        guarded_job = functools.partial(attempt if self.skip_bad else _insist, job)
        results = ordered_map(guarded_job, self._images(), min(self.workers, self.source.count), chunk)
        return progress(results, self._count, title)


def progress(results: Iterable[Result], count: int, title: str) -> Iterable[Result]:
    """Return results that are counted on the console as they pass."""
    return tqdm(results, title, count, unit="img", leave=False, disable=None)


def encode(transform: ImageTransform, layout: Layout, source_image: SourceImage) -> Encoded:
    """Return an image as a PNG file of this layout, and its label; ValueError if it is unusable."""
    original = source_image.pixels(layout.channels, transform.background)
    with named(source_image.origin):
        pixels = transform.apply(original)
        image.check_layout(pixels, layout)
    return image.encode_png(pixels), source_image.label


def _layout(transform: ImageTransform, source_image: SourceImage) -> Layout:
    layout = source_image.layout(transform.background)
    with named(source_image.origin):
        transform.check(layout)
    return layout


def attempt(job: Callable[[SourceImage], Result], source_image: SourceImage) -> Result | ValueError:
    """Return the result of a job, or its error if the image is unusable; ChangedError if the whole source is."""
    try:
        return job(source_image)
    except ChangedError:
        raise
    except ValueError as error:
        return ValueError(str(error))  # without the traceback, which cannot be sent


def _insist(job: Callable[[SourceImage], Result], source_image: SourceImage) -> Result:
    try:
        return job(source_image)
    except ValueError as error:
        raise ValueError(f"{error}. Or skip such files with --on-error=skip") from error


def _chunk_size(layout: Layout) -> int:
    return max(1, min(_CHUNK, _CHUNK_PX // max(layout.width * layout.height, 1)))
