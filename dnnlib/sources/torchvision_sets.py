"""The public data sets that torchvision reads, by name or as their authors publish them; torchvision is imported when needed."""

import atexit
import functools
import inspect
import io
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dnnlib.sources.source_images import ArrayImage, EncodedImage, ImageSource, SourceImage
from dnnlib.text import first_line

PREFIX = "torchvision:"
PUBLISHED = {  # name -> folder in --root, files one of which is in it, split that GANs are trained on
    "CIFAR10": ("cifar-10-batches-py", ("data_batch_1", "batches.meta"), None),
    "STL10": ("stl10_binary", ("train_X.bin", "test_X.bin", "unlabeled_X.bin"), "train+unlabeled"),
}

_SPLIT_OPTIONS = ("split", "image_set", "train")  # what constructors call the part of a set; the last one is a bool
_TRAIN = {"train": True, "test": False}
_OWN_OPTIONS = {"root", "download", *_SPLIT_OPTIONS}
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # that PNG holds; the others become RGB


@dataclass(frozen=True)
class NamedSet:
    """What a process needs to open a set."""

    name: str  # of a class in torchvision.datasets
    root: Path  # folder that holds it, or that it is downloaded to
    split: str | None = None  # None = that of training, or the default of the class
    source: str = ""  # for messages, if it was given as a file or folder

    @property
    def title(self) -> str:
        return self.source or f"torchvision's {self.name}"

    def arguments(self, download: bool) -> dict[str, Any]:
        """Return the arguments of the class; ValueError if it takes no such split."""
        taken = _parameters(_class_of(self.name))
        values: dict[str, Any] = {"root": str(self.root)} if "root" in taken else {}
        if download and "download" not in taken:
            raise ValueError(f"torchvision cannot download {self.name}; get it from its site, and leave out --download")
        if "download" in taken:
            values["download"] = download
        option = next((option for option in _SPLIT_OPTIONS if option in taken), None)
        if self.split is not None and option is None:
            raise ValueError(f"--split={self.split}: {self.title} has no splits; leave it out")
        if option == "train":
            if self.split not in (None, *_TRAIN):
                raise ValueError(f"--split={self.split} is unknown; {self.title} has {', '.join(_TRAIN)}")
            values["train"] = _TRAIN[self.split or "train"]
        elif option and self.split is not None:
            values[option] = self.split
        if missing := sorted(_needed(_class_of(self.name)) - values.keys()):
            hint = "give --split" if missing == [option] else "only sets that need nothing but a folder can be packed"
            raise ValueError(f"torchvision's {self.name} cannot be opened without {', '.join(missing)}; {hint}")
        return values


@dataclass(frozen=True)
class TorchvisionImage(EncodedImage):
    """An image of a set, read when asked for."""

    named_set: NamedSet
    index: int

    @property
    def origin(self) -> str:
        return _origin(self.named_set, self.index)

    @property
    def label(self) -> int | None:
        return _item(self.named_set, self.index)[1]

    def content(self) -> bytes:
        return _png(_item(self.named_set, self.index)[0])


def find_published(path: Path, source: str, split: str | None) -> NamedSet | None:
    """Return the set whose unpacked files are in a folder, or in a folder in it; None if there is none.

    Without a split it is the one that GANs are trained on.
    """
    for name, (base, files, default_split) in PUBLISHED.items():
        for folder in (path, path / base):
            if any((folder / file).is_file() for file in files):
                root = folder.parent
                if folder.name != base:
                    root = temporary_folder()
                    (root / base).symlink_to(folder.resolve(), target_is_directory=True)
                return NamedSet(name, root, split or default_split, source)
    return None


def temporary_folder() -> Path:
    """Create a folder that is removed when the program ends."""
    folder = Path(tempfile.mkdtemp(prefix="dataset_tool-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def open_torchvision(named_set: NamedSet, download: bool, max_images: int | None) -> ImageSource:
    """Return the images of a set, with labels if all have a class index; the first `max_images`.

    Raises ValueError: no such set, not in its folder, its files damaged, or not made of still images.
    """
    if download:
        _opened(named_set, download=True)
        _opened.cache_clear()
    dataset = _opened(named_set)
    total = len(dataset)
    if total == 0:
        raise ValueError(f"{named_set.title} in {named_set.root} is empty; download it again")
    count = min(total, max_images or total)
    labelled = _has_label(named_set, 0) and _has_label(named_set, total - 1)
    class_names = _class_names(dataset) if labelled else ()
    if not hasattr(getattr(dataset, "data", None), "shape"):
        images = [TorchvisionImage(named_set, index) for index in range(count)]
        return ImageSource(count, lambda: images, labelled, class_names)
    # all images in one array: read here, as each worker would load all of it
    first = _array_image(named_set, 0, labelled)

    def array_images() -> Iterator[SourceImage]:
        return (_array_image(named_set, index, labelled) for index in range(count))

    return ImageSource(count, array_images, labelled, class_names, first.layout())


def _array_image(named_set: NamedSet, index: int, labelled: bool) -> ArrayImage:
    image, label = _item(named_set, index)
    pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    return ArrayImage(_origin(named_set, index), np.atleast_3d(pixels), label if labelled else None)


def _has_label(named_set: NamedSet, index: int) -> bool:
    try:
        return _item(named_set, index)[1] is not None
    except ValueError:  # reported, or skipped, when it is packed
        return True


def _origin(named_set: NamedSet, index: int) -> str:
    return f"image {index} of {named_set.title}"


def _class_names(dataset: Any) -> tuple[str, ...]:
    names: Any = getattr(dataset, "classes", None)
    are_texts = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return tuple(names) if are_texts else ()


@functools.lru_cache(maxsize=1)
def _opened(named_set: NamedSet, download: bool = False) -> Any:
    """Return a set as torchvision opens it, once per process; ValueError that names the set and the folder."""
    arguments = named_set.arguments(download)
    try:
        return _class_of(named_set.name)(**arguments)
    except Exception as error:  # each set has its own
        if named_set.source and isinstance(error, RuntimeError):
            raise ValueError(
                f"{named_set.source} is not {named_set.name} as published: a file is missing or damaged; download it again"
            ) from error
        if isinstance(error, ImportError):
            remedy = "install that package"
        elif download:
            remedy = "try again, or get it from its site"
        else:
            remedy = "give --root, or --download to fetch it there" if "download" in arguments else "give --root"
        raise ValueError(
            f"{named_set.title} cannot be opened in {named_set.root}: {first_line(error).rstrip('.')}; {remedy}"
        ) from error


@functools.lru_cache(maxsize=1)
def _item(named_set: NamedSet, index: int) -> tuple[Image.Image, int | None]:
    """Return an image and its class index if it has one; kept until the next one is asked for."""
    origin = _origin(named_set, index)
    try:
        item = _opened(named_set)[index]
    except Exception as error:  # each set has its own
        raise ValueError(f"{origin} cannot be read: {first_line(error).rstrip('.')}") from error
    image, label = item[:2] if isinstance(item, tuple) and len(item) > 1 else (item, None)
    if not isinstance(image, Image.Image):
        raise ValueError(f"{origin} is not a still image but a {type(image).__name__}; choose another set")
    is_class = isinstance(label, int | np.integer) and not isinstance(label, bool) and label >= 0  # -1 = none
    return image, int(label) if is_class else None


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    (image if image.mode in _MODES else image.convert("RGB")).save(file, "png", compress_level=0)
    return file.getvalue()


def _class_of(name: str) -> Any:
    known = _known_sets()
    if name not in known:
        raise ValueError(f"torchvision has no set {name!r} that could be packed; it has {', '.join(sorted(known))}")
    return known[name]


@functools.cache
def _known_sets() -> dict[str, Any]:
    """Return the classes that need only a folder and perhaps a split, by name."""
    try:
        from torchvision import datasets
    except ImportError as error:
        raise ValueError(f"this source needs torchvision, which cannot be imported: {error}") from error
    classes = {name: getattr(datasets, name) for name in datasets.__all__ if name != "VisionDataset"}  # their base
    return {name: item for name, item in classes.items() if inspect.isclass(item) and _needed(item) <= _OWN_OPTIONS}


def _needed(item: type) -> set[str]:
    return {name for name, default in _parameters(item).items() if default is inspect.Parameter.empty}


def _parameters(item: type) -> dict[str, Any]:
    """Return the parameters of a constructor and their defaults, with those of the base class that it hands **kwargs to."""
    found: dict[str, Any] = {}
    for base in item.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        named = [parameter for parameter in parameters if parameter.kind == parameter.POSITIONAL_OR_KEYWORD]
        found = {parameter.name: parameter.default for parameter in named[1:]} | found
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found
