"""dataset.json: the labels of a data set, also from its folders, and the layout of all images, which saves reading headers."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dnnlib.archive.file_tree import natural_key
from dnnlib.archive.image_tree import LABEL_FILE, ImageTree
from dnnlib.dataclass_values import MAX_FLOAT
from dnnlib.images.codec import SUFFIXES, Layout
from dnnlib.names import normal_name, normal_text, printable
from dnnlib.text import format_int_list

MAX_BYTES = 2**28  # of the file: some five million labels

_MAX_CLASSES = 2**16  # each image gets a vector of so many numbers

Label = int | tuple[float, ...]  # class index, or any vector


@dataclass(frozen=True)
class LabelTable:
    """Labels by file name, all of one kind, and the names of the classes."""

    by_name: dict[str, Label]
    class_names: tuple[str, ...] = ()  # () = the data set names none
    origin: str = LABEL_FILE  # for messages

    def __post_init__(self) -> None:
        check_labels(list(self.by_name.items()), self.class_names, self.origin)

    def labels_of(self, names: Sequence[str]) -> list[Label]:
        """Return the labels of these files, which must be exactly those of the table."""
        by_name = self._by_name_of(names)
        missing = [name for name in names if name not in by_name]
        unknown = sorted(by_name.keys() - set(names), key=natural_key)
        problems = [f"no label for {some_of(missing)}"] if missing else []
        problems += [f"labels for {some_of(unknown)}, which are no images here"] if unknown else []
        if problems:
            remedy = 'label all images and nothing else, or none ("labels": null)'
            raise ValueError(f"{self.origin} has {' and '.join(problems)}; {remedy}")
        return [by_name[name] for name in names]

    def _by_name_of(self, names: Sequence[str]) -> dict[str, Label]:
        """Return the labels by the names of the files.

        The names may differ in a folder around all of one side, and in the letter case of suffixes.
        """
        if all(name in self.by_name for name in names):
            return self.by_name
        name_of = dict(zip(_core_names(names), names, strict=True))
        labels = dict(zip(_core_names(list(self.by_name)), self.by_name.values(), strict=True))
        if labels.keys() != name_of.keys() or len(name_of) < len(names) or len(labels) < len(self.by_name):
            return self.by_name
        return {name_of[core]: label for core, label in labels.items()}


def read_label_table(tree: ImageTree) -> LabelTable | None:
    """Return the labels in the dataset.json of a folder or zip; None if there is no such file or it holds no labels."""
    if tree.label_file is None:
        return None
    origin = tree.origin(tree.label_file)
    with tree.named_errors(tree.label_file):
        text = tree.read(tree.label_file, MAX_BYTES)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{origin} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f'{origin} must hold an object {{"labels": [[file name, label], ...]}}')
    if "labels" not in content and any(name.lower().endswith(SUFFIXES) for name in content):
        raise ValueError(f'{origin} has file names but no "labels"; write {{"labels": [[file name, label], ...]}}')
    if content.get("labels") is None:
        return None
    class_names = content.get("class_names") or []
    if not (isinstance(class_names, list) and all(isinstance(name, str) for name in class_names)):
        raise ValueError(f'{origin}: "class_names" must be a list of texts, one per class')
    return LabelTable(_by_name(content["labels"], origin), tuple(map(normal_text, class_names)), origin)


def labels_from_folders(names: Sequence[str], origin: str) -> LabelTable:
    """Return labels by the folder of each file; folders that all files share do not count.

    Of "train/cat/1.png" and "train/dog/a/2.png" the classes are cat and dog. Their indexes follow the natural order of
    the names.
    """
    folders = [name.split("/")[:-1] for name in names]
    depth = _shared_depth(folders)
    if loose := [name for name, folder in zip(names, folders, strict=True) if len(folder) == depth]:
        raise ValueError(
            f"--labels-from-folders needs every image of {origin} in the folder of its class, and two classes or "
            f"more; {some_of(loose)} is in none"
        )
    class_names = sorted({folder[depth] for folder in folders}, key=natural_key)
    index = {name: number for number, name in enumerate(class_names)}
    by_name: dict[str, Label] = {name: index[folder[depth]] for name, folder in zip(names, folders, strict=True)}
    return LabelTable(by_name, tuple(class_names), origin)


def folders_without_images(names: Sequence[str], others: Iterable[str]) -> list[str]:
    """Return the folders that would be classes by `labels_from_folders`, but hold only other files than these images."""
    folders = [name.split("/")[:-1] for name in names]
    depth = _shared_depth(folders)
    shared = folders[0][:depth]
    parts = (other.split("/") for other in others)
    found = {part[depth] for part in parts if len(part) > depth + 1 and part[:depth] == shared}
    return sorted(found - {folder[depth] for folder in folders}, key=natural_key)


def empty_classes(labels: Iterable[Label], class_names: Sequence[str]) -> str:
    """Return the classes without images, such as "0,4-39"; "" if there are none, or labels are vectors."""
    used = {label for label in labels if isinstance(label, int)}
    return format_int_list(sorted(set(range(max(len(class_names), *used, 0))) - used)) if used else ""


def check_labels(labels: Sequence[tuple[str, Label]], class_names: Sequence[str], origin: str) -> None:
    """Raise ValueError unless these (file name, label) pairs agree in kind and length, and with the class names."""
    if not labels:
        return
    if len(class_names) > _MAX_CLASSES:
        raise ValueError(f"{origin} has {len(class_names):,} classes; the limit is {_MAX_CLASSES:,}")
    if len(set(class_names)) < len(class_names):
        twice = next(name for name in class_names if class_names.count(name) > 1)
        raise ValueError(f'{origin} has two classes named "{printable(twice)}"; rename one of them')
    first_name, first = labels[0]
    if not isinstance(first, int) and len(class_names) not in (0, len(first)):
        raise ValueError(
            f'{origin}: "class_names" has {len(class_names)} names, but the labels are vectors of length {len(first)}; '
            f"name every value or none"
        )
    for name, label in labels:
        if _kind(label) != _kind(first):
            raise ValueError(
                f"{origin}: the label of {printable(name)} is {_kind(label)}, that of {printable(first_name)} {_kind(first)}; "
                "all labels must be class indexes or vectors of one length"
            )
        if isinstance(label, int) and not 0 <= label < (len(class_names) or _MAX_CLASSES):
            last = f'{len(class_names) - 1}, the classes in "class_names"' if class_names else f"{_MAX_CLASSES - 1:,}"
            raise ValueError(f"{origin}: the class index of {printable(name)} is {str(label)[:80]}, outside 0..{last}")


def _shared_depth(folders: list[list[str]]) -> int:
    """Return how many of the first parts all paths share."""
    for depth, parts in enumerate(zip(*folders, strict=False)):
        if len(set(parts)) > 1:
            return depth
    return min(len(folder) for folder in folders)


def _core_names(names: Sequence[str]) -> list[str]:
    """Return names without the folders that all share, with suffixes in lower case."""
    folders = [name.split("/")[:-1] for name in names]
    depth = _shared_depth(folders) if names else 0
    cores = ["/".join(name.split("/")[depth:]) for name in names]
    return [f"{stem}{dot}{suffix.lower()}" for stem, dot, suffix in (core.rpartition(".") for core in cores)]


def _by_name(pairs: object, origin: str) -> dict[str, Label]:
    if not isinstance(pairs, list):
        raise ValueError(f'{origin}: "labels" must be a list of [file name, label] pairs, or null')
    by_name: dict[str, Label] = {}
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise ValueError(f"{origin}: {str(pair)[:80]} is not a [file name, label] pair")
        name = normal_name(pair[0])
        if name in by_name:
            shown = f'{printable(name)} is labelled twice, the second time as "{printable(pair[0])}"'
            raise ValueError(f"{origin}: {shown}; remove one of the entries")
        by_name[name] = _parse(pair[1], name, origin)
    return by_name


def _parse(label: object, name: str, origin: str) -> Label:
    if isinstance(label, int) and not isinstance(label, bool):
        return label
    numbers = label if isinstance(label, list) else []
    if numbers and all(type(value) in (int, float) and abs(value) < MAX_FLOAT for value in numbers):
        return tuple(map(float, numbers))
    raise ValueError(
        f"{origin}: the label of {printable(name)} is {printable(repr(label)[:80])}; write a class index or a list of numbers"
    )


def _kind(label: Label) -> str:
    return "a class index" if isinstance(label, int) else f"a vector of length {len(label)}"


def some_of(names: Sequence[str]) -> str:
    """Return the first three names and the number of the others."""
    rest = len(names) - 3
    return ", ".join(map(printable, names[:3])) + (f" and {rest} more" if rest > 0 else "")


KEY = "image_format"  # in dataset.json; StyleGAN2-ADA's readers look at "labels" alone
BITS = 8  # per channel

_MAX_SIDE_PX = 2**16


def format_note(layout: Layout, count: int) -> dict[str, int]:
    """Return the value of KEY for so many images of one layout."""
    return {"width": layout.width, "height": layout.height, "channels": layout.channels, "bits": BITS, "count": count}


def declared_layout(tree: ImageTree, count: int) -> Layout | None:
    """Return the layout that dataset.json declares for all `count` images of a folder or zip.

    None if it declares none, or for another number of images: then files were added or removed since it was written, and
    the headers have to be read. Invalid JSON is left to `read_label_table`; ValueError if the note is not as of `format_note`.
    """
    if tree.label_file is None:
        return None
    with tree.named_errors(tree.label_file):
        text = tree.read(tree.label_file, MAX_BYTES)
    try:
        content = json.loads(text) if KEY.encode() in text else {}
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or KEY not in content:
        return None
    layout, noted_count = _parse_layout(content[KEY], tree.origin(tree.label_file))
    return layout if noted_count == count else None


def _parse_layout(note: object, origin: str) -> tuple[Layout, int]:
    limits = {"width": _MAX_SIDE_PX, "height": _MAX_SIDE_PX, "channels": 3, "bits": BITS, "count": 2**31}
    values = note if isinstance(note, dict) else {}
    is_sound = all(type(values.get(name)) is int and 1 <= values[name] <= limit for name, limit in limits.items())
    if not (is_sound and values["channels"] in (1, 3) and values["bits"] == BITS):
        example = json.dumps(format_note(Layout(32, 32, 3), 9))
        raise ValueError(
            f'{origin}: "{KEY}" is {str(note)[:120]}; it must be like {example}: remove it, and the headers of all images '
            f"are read instead"
        )
    return Layout(values["width"], values["height"], values["channels"]), values["count"]
