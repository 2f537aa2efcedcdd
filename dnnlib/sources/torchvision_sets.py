"""The public data sets that torchvision knows by name; the one place in dnnlib that imports it, and only when asked for."""

import contextlib
import functools
import inspect
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dnnlib.sources.source_images import EncodedImage, ImageSource

PREFIX = "torchvision:"

_SPLIT_OPTIONS = ("split", "image_set", "train")  # what constructors call the part of a set; the last one is a bool
_TRAIN = {"train": True, "test": False}
_OWN_OPTIONS = {"root", "download", *_SPLIT_OPTIONS}
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # that PNG holds; the others become RGB


@dataclass(frozen=True)
class NamedSet:
    """Which set it is: all that another process needs in order to open it."""

    name: str  # of a class in torchvision.datasets
    root: Path  # folder in which it lies, or is downloaded to
    split: str | None = None  # None = that of training, or the class's own default

    def arguments(self, download: bool) -> dict[str, Any]:
        """Return what to call the class with; ValueError if it takes no such split."""
        taken = _parameters(_class_of(self.name))
        values: dict[str, Any] = {"root": str(self.root)} if "root" in taken else {}
        if download and "download" not in taken:
            raise ValueError(f"torchvision cannot download {self.name}; get it from its site, and leave out --download")
        if "download" in taken:
            values["download"] = download
        option = next((option for option in _SPLIT_OPTIONS if option in taken), None)
        if self.split is not None and option is None:
            raise ValueError(f"--split={self.split} is not for torchvision's {self.name}, which has one part only")
        if option == "train":
            if self.split not in (None, *_TRAIN):
                raise ValueError(f"--split={self.split} is unknown; {self.name} has {', '.join(_TRAIN)}")
            values["train"] = _TRAIN[self.split or "train"]
        elif option and self.split is not None:
            values[option] = self.split
        missing = [key for key, default in taken.items() if default is inspect.Parameter.empty and key not in values]
        if missing:
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
        return f"image {self.index} of torchvision's {self.named_set.name}"

    @property
    def label(self) -> int | None:
        return _item(self.named_set, self.index)[1]

    def content(self) -> bytes:
        return _item(self.named_set, self.index)[0]


def open_torchvision(named_set: NamedSet, download: bool, max_images: int | None = None) -> ImageSource:
    """Return the images of a set, with their labels where these are class indexes; the first ones if not all are wanted.

    Raises:
        ValueError: No such set, not in its folder, its files damaged, or not made of still images.
    """
    if download:
        _opened(named_set, download=True)
        _opened.cache_clear()
    dataset = _opened(named_set)
    total = len(dataset)
    count = min(total, max_images or total)
    images = [TorchvisionImage(named_set, index) for index in range(count)]
    if not images:
        raise ValueError(f"torchvision's {named_set.name} in {named_set.root} is empty; download it again")
    labelled = images[0].label is not None
    if labelled and _is_without_label(images[-1]):
        raise ValueError(f"torchvision's {named_set.name} has labels for some images only; choose another --split")
    return ImageSource(count, lambda: images, labelled, _class_names(dataset) if labelled else ())


def _is_without_label(image: TorchvisionImage) -> bool:
    try:
        return image.label is None
    except ValueError:  # said, or passed over, when it is packed
        return False


def _class_names(dataset: Any) -> tuple[str, ...]:
    """Return the names of the classes by index; () where there are none, or something else has that name."""
    names = getattr(dataset, "classes", None)
    if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return ()


@functools.lru_cache(maxsize=1)
def _opened(named_set: NamedSet, download: bool = False) -> Any:
    """Return a set as torchvision opens it, once per process."""
    arguments = named_set.arguments(download)
    with _named_errors(named_set, download):
        return _class_of(named_set.name)(**arguments)


@functools.lru_cache(maxsize=1)
def _item(named_set: NamedSet, index: int) -> tuple[bytes, int | None]:
    """Return an image as PNG, and its class index if it has one; kept until the next one is asked for."""
    origin = f"image {index} of torchvision's {named_set.name}"
    try:
        item = _opened(named_set)[index]
    except Exception as error:  # each set has its own
        raise ValueError(f"{origin} cannot be read: {_first_line(error)}") from error
    image, label = (item[0], item[1]) if isinstance(item, tuple) and len(item) > 1 else (item, None)
    if not isinstance(image, Image.Image):
        raise ValueError(f"{origin} is no still image but a {type(image).__name__}; choose another set")
    if isinstance(label, int | np.integer) and not isinstance(label, bool) and label >= 0:  # -1 is none
        return _png(image), int(label)
    return _png(image), None


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    (image if image.mode in _MODES else image.convert("RGB")).save(file, "png", compress_level=0)
    return file.getvalue()


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0].rstrip(".") or type(error).__name__


@contextlib.contextmanager
def _named_errors(named_set: NamedSet, download: bool) -> Iterator[None]:
    """Turn whatever a constructor raises into a ValueError that names the set and the folder."""
    try:
        yield
    except Exception as error:  # each set has its own
        can_download = "download" in _parameters(_class_of(named_set.name))
        remedy = "give --root, or --download to fetch it there" if can_download else "give --root"
        if download:
            remedy = "try again, or get it from its site"
        if isinstance(error, ImportError):
            remedy = "install that package"
        raise ValueError(
            f"torchvision's {named_set.name} cannot be opened in {named_set.root}: {_first_line(error)}; {remedy}"
        ) from error


def _class_of(name: str) -> Any:
    known = _known_sets()
    if name not in known:
        raise ValueError(f"torchvision has no set {name!r} that could be packed; it has {', '.join(sorted(known))}")
    return known[name]


@functools.cache
def _known_sets() -> dict[str, Any]:
    """Return the classes that need nothing but a folder and perhaps a split, by name."""
    try:
        from torchvision import datasets
    except ImportError as error:
        raise ValueError(f"--source={PREFIX}... needs torchvision, which cannot be imported: {error}") from error
    classes = {name: getattr(datasets, name) for name in datasets.__all__ if name != "VisionDataset"}  # their base
    return {name: item for name, item in classes.items() if inspect.isclass(item) and _needs_little(item)}


def _needs_little(item: type) -> bool:
    taken = _parameters(item)
    return all(key in _OWN_OPTIONS for key, default in taken.items() if default is inspect.Parameter.empty)


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
