"""Statistics of a source of images, and the report with the command that makes it fit for train.py."""

import functools
import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageOps

from dnnlib.archive.label_table import Label
from dnnlib.images.captions import MIN_CELL_PX, sheet
from dnnlib.images.codec import FileKind, to_pillow
from dnnlib.packing.packer import attempt, progress
from dnnlib.parallel import ordered_map
from dnnlib.sources.source_images import ImageSource, SourceImage

MAX_CLASS_COLUMNS = 20  # of the samples: one per class; as many classes are listed
NUM_COLUMNS, NUM_ROWS = 12, 8  # of the samples without classes
WHITE = (255, 255, 255)

_MAX_HEADING = 16  # characters of a class name
_CHUNK = 64  # images sent to a process at once
_MAX_MESSAGES = 10
_MAX_GROUPS, _MAX_NAMES = 3, 3  # of identical images that are named


@dataclass(frozen=True)
class Facts:
    kind: FileKind
    size: tuple[int, int]  # width, height
    digest: bytes  # of the pixels
    label: Label | None


@dataclass
class Inspection:
    count: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # by (width, height)
    labels: Counter[int] = field(default_factory=Counter)  # by class index
    label_length: int = 0  # of labels that are vectors
    num_unusable: int = 0
    messages: list[str] = field(default_factory=list)  # of the first unusable images
    num_repeated: int = 0  # images with the same pixels as an earlier one
    repeated: list[list[str]] = field(default_factory=list)  # names of some identical images
    samples: dict[int, list[SourceImage]] = field(default_factory=dict)  # by class index; all under 0 without classes

    @property
    def num_transparent(self) -> int:
        return sum(count for mode, count in self.modes.items() if mode.endswith("alpha"))

    def add(self, facts: Facts | ValueError) -> None:
        self.count += 1
        if isinstance(facts, ValueError):
            self.num_unusable += 1
            if len(self.messages) < _MAX_MESSAGES:
                self.messages.append(str(facts))
            return
        self.formats[facts.kind.file_format] += 1
        self.modes[facts.kind.mode] += 1
        self.sizes[facts.size] += 1
        if isinstance(facts.label, int):
            self.labels[facts.label] += 1
        elif facts.label is not None:
            self.label_length = len(facts.label)


def inspect_source(source: ImageSource, workers: int) -> Inspection:
    """Decode all images of a source and return their statistics; ChangedError if the source is gone or was replaced."""
    found = Inspection()
    offered: Counter[int] = Counter()  # images by class, of which `samples` are a random choice
    rng = random.Random(0)
    seen: dict[bytes, str] = {}  # digest of the pixels -> name of the first image that has them
    repeated: dict[bytes, list[str]] = {}  # the same of images that others are equal to, with some of those
    images, same_images = itertools.tee(source.images())  # an archive is unpacked once
    results = ordered_map(functools.partial(attempt, examine), images, min(workers, source.count), _CHUNK)
    for source_image, facts in zip(same_images, progress(results, source.count, "Inspecting"), strict=True):
        found.add(facts)
        if isinstance(facts, Facts):
            if facts.digest in seen:
                found.num_repeated += 1
                repeated.setdefault(facts.digest, [seen[facts.digest]]).append(source_image.origin)
            seen.setdefault(facts.digest, source_image.origin)
            key, size = (facts.label, NUM_ROWS) if isinstance(facts.label, int) else (0, NUM_ROWS * NUM_COLUMNS)
            offered[key] += 1
            chosen = found.samples.setdefault(key, []) if key < MAX_CLASS_COLUMNS else []
            place = len(chosen) if len(chosen) < size else rng.randrange(offered[key])
            if place < size:
                chosen[place : place + 1] = [source_image]
    if found.num_unusable:
        source.check()
    groups = [repeated[digest] for digest in seen if digest in repeated]  # ordered by their first image
    found.repeated = [names[:_MAX_NAMES] for names in groups[:_MAX_GROUPS]]
    found.samples = dict(sorted(found.samples.items()))
    return found


def examine(source_image: SourceImage) -> Facts:
    """Return the facts about an image; ValueError if it is unusable."""
    kind, pixels = source_image.kind(), _pixels_of(source_image)
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=8)
    digest.update(np.ascontiguousarray(pixels).data)
    return Facts(kind, (pixels.shape[1], pixels.shape[0]), digest.digest(), source_image.label)


def _pixels_of(source_image: SourceImage) -> np.ndarray:
    return source_image.pixels(source_image.layout(WHITE).channels, WHITE)


def sample_sheet(found: Inspection, class_names: Sequence[str]) -> np.ndarray:
    """Return the samples as one image, uint8 [height, width, 3], with the names of their classes above them."""
    columns = []
    every = found.samples.get(0, [])
    stripes = {column: every[column::NUM_COLUMNS] for column in range(min(NUM_COLUMNS, len(every)))}
    for key, chosen in (found.samples if found.labels else stripes).items():
        heading = (class_names[key] if class_names else str(key)) if found.labels else ""
        columns.append([(_fitted(image), "" if row else heading[:_MAX_HEADING]) for row, image in enumerate(chosen)])
    return sheet(list(itertools.zip_longest(*columns)))


def _fitted(source_image: SourceImage) -> np.ndarray:
    image = to_pillow(_pixels_of(source_image)).convert("RGB")
    method = Image.Resampling.LANCZOS if max(image.size) > MIN_CELL_PX else Image.Resampling.NEAREST
    return np.asarray(ImageOps.pad(image, (MIN_CELL_PX, MIN_CELL_PX), method, color=WHITE))


Refusal = Callable[[int, int], str | None]  # of width and height: why train.py cannot train on them; None if it can

_MAX_LINES = 8  # of a histogram
_INDENT = 12
_SIDES_PX = (256, 128, 96, 64, 48, 32)  # to propose
_SHARE = 0.9  # of the images must not be enlarged


def report(found: Inspection, images: ImageSource, chosen: Sequence[str], refusal: Refusal) -> list[str]:
    lines = [f"{found.count:,} images{f'; left out: {images.left_out}' if images.left_out else ''}"]
    lines += _section("format", _histogram(found.formats))
    lines += _section("size", _histogram(Counter({f"{w}x{h}": count for (w, h), count in found.sizes.items()})))
    lines += _section("colour", _histogram(found.modes))
    lines += _section("labels", _labels(found, images))
    lines += _section("unusable", _unusable(found))
    lines += _section("duplicates", _duplicates(found))
    return lines + _section("train.py", _verdict(found, images, chosen, refusal))


def _verdict(found: Inspection, images: ImageSource, chosen: Sequence[str], refusal: Refusal) -> list[str]:
    """Return whether train.py can train on the source; if not, why not and the command that makes it fit."""
    if not found.sizes:
        return ["cannot train on it: no image can be read"]
    obstacles = _obstacles(found, images, refusal)
    if not obstacles:
        return ["can train on it as it is"]
    options = " ".join([*chosen, "--dest=NEW.zip", *(remedy for _, remedy in obstacles if remedy)])
    reasons = [f"- {reason}" for reason, _ in obstacles]
    return ["cannot train on it as it is:", *reasons, "pack it first:", f"  python dataset_tool.py {options}"]


def _obstacles(found: Inspection, images: ImageSource, refusal: Refusal) -> list[tuple[str, str]]:
    """Return why train.py cannot train on the source, each with the options of dataset_tool.py that help."""
    obstacles = [(images.packing_reason, "")] if images.packing_reason else []
    if found.num_unusable:
        obstacles.append((f"unusable images: {found.num_unusable:,}", "--on-error=skip"))
    if found.num_transparent:
        obstacles.append((f"transparent images: {found.num_transparent:,}", "--background=white"))
    side = _side(found.sizes)
    resized = f"--transform=center-crop --width={side} --height={side}"
    if len(found.sizes) > 1:
        obstacles.append((f"images of {len(found.sizes):,} sizes", resized))
    else:
        refused = refusal(*next(iter(found.sizes)))
        obstacles += [(refused, resized)] if refused else []
    return obstacles


def _side(sizes: Counter[tuple[int, int]]) -> int:
    """Return the largest usual side for which few images would have to be enlarged."""
    for side in _SIDES_PX:
        if sum(count for size, count in sizes.items() if min(size) >= side) >= _SHARE * sizes.total():
            return side
    return _SIDES_PX[-1]


def _labels(found: Inspection, images: ImageSource) -> list[str]:
    if found.label_length:
        return [f"vectors of length {found.label_length}"]
    if not images.labelled:
        return ["none"]
    names = images.class_names
    classes = range(max(len(names), max(found.labels, default=-1) + 1))
    width = max((len(name) for name in names), default=0)
    rows = [
        f"{index:>6} {names[index] if names else '':<{width}} {found.labels[index]:>9,}"
        for index in classes[:MAX_CLASS_COLUMNS]
    ]
    rest = [found.labels[index] for index in classes[MAX_CLASS_COLUMNS:]]
    if rest:
        rows.append(f"... and {len(rest):,} more, of {min(rest):,} to {max(rest):,} images")
    return [f"{len(classes):,} classes", *rows]


def _unusable(found: Inspection) -> list[str]:
    if not found.num_unusable:
        return ["none"]
    rest = found.num_unusable - len(found.messages)
    return [f"{found.num_unusable:,}", *found.messages, *[f"... and {rest:,} more"] * bool(rest)]


def _duplicates(found: Inspection) -> list[str]:
    if not found.num_repeated:
        return ["none"]
    noun = "image has" if found.num_repeated == 1 else "images have"
    return [f"{found.num_repeated:,} {noun} the same pixels as another", *map(" = ".join, found.repeated)]


def _histogram(counts: Counter[str]) -> list[str]:
    shown = counts.most_common(_MAX_LINES)
    width = max((len(value) for value, _ in shown), default=0)
    rest = len(counts) - len(shown)
    return [f"{value:<{width}} {count:>9,}" for value, count in shown] + [f"... and {rest:,} more"] * bool(rest)


def _section(title: str, lines: Sequence[str]) -> list[str]:
    """Return lines with a title before the first one."""
    return [f"{title if number == 0 else '':<{_INDENT}}{line}" for number, line in enumerate(lines)]
