"""Says in words what an inspection has found, and what train.py will make of it."""

from collections import Counter
from collections.abc import Callable, Sequence

from dnnlib.inspection import MAX_CLASS_COLUMNS, Inspection
from dnnlib.source_pictures import ImageSource

Refusal = Callable[[int, int], str | None]  # of a width and a height: why train.py cannot take them; None if it can

_MAX_LINES = 8  # of a histogram
_MAX_CLASSES = MAX_CLASS_COLUMNS
_INDENT = 12
_SIDES_PX = (256, 128, 96, 64, 48, 32)  # to propose
_SHARE = 0.9  # of the pictures are not to be enlarged


def report(found: Inspection, images: ImageSource, source: str, refusal: Refusal) -> list[str]:
    """Return the lines to print."""
    lines = [f"{source}: {found.count:,} pictures" + (f", {images.num_others:,} other files" * bool(images.num_others))]
    lines += _section("format", _histogram(found.formats))
    lines += _section("size", _histogram(Counter({f"{w}x{h}": count for (w, h), count in found.sizes.items()})))
    lines += _section("colour", _histogram(found.modes))
    lines += _section("labels", _labels(found, images))
    lines += _section("unusable", _unusable(found))
    lines += _section("duplicates", _duplicates(found))
    return lines + _section("train.py", verdict(found, images, source, refusal))


def verdict(found: Inspection, images: ImageSource, source: str, refusal: Refusal) -> list[str]:
    """Return whether train.py takes the source as it is; if not, why not and the command that makes it fit."""
    reasons, options = [], []
    if not images.is_dataset:
        reasons.append("it is neither a folder nor a zip of pictures")
    if found.num_unusable:
        reasons.append(f"{found.num_unusable:,} pictures are unusable")
        options.append("--on-error=skip")
    if found.num_transparent:
        reasons.append(f"{found.num_transparent:,} pictures are transparent")
        options.append("--background=white")
    refused = [text for text in (refusal(*size) for size in found.sizes) if text]
    if len(found.sizes) > 1 or refused:
        reasons.append(f"there are {len(found.sizes):,} sizes" if len(found.sizes) > 1 else refused[0])
        side = _side(found.sizes)
        options += ["--transform=center-crop", f"--width={side}", f"--height={side}"]
    if not found.sizes:
        return ["cannot use it: none of the pictures can be read"]
    if not reasons:
        return ["takes it as it is"]
    command = " ".join(["python dataset_tool.py", f"--source={source}", "--dest=NEW.zip", *options])
    return ["does not take it as it is:", *(f"- {reason}" for reason in reasons), "so pack it:", f"  {command}"]


def _side(sizes: Counter[tuple[int, int]]) -> int:
    """Return the largest usual side for which few pictures would have to be enlarged."""
    enough = [
        side
        for side in _SIDES_PX
        if sum(count for size, count in sizes.items() if min(size) >= side) >= _SHARE * sizes.total()
    ]
    return enough[0] if enough else _SIDES_PX[-1]


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
        for index in classes[:_MAX_CLASSES]
    ]
    rest = [found.labels[index] for index in classes[_MAX_CLASSES:]]
    if rest:
        rows.append(f"... and {len(rest):,} more, of {min(rest):,} to {max(rest):,} pictures")
    return [f"{len(classes):,} classes", *rows]


def _unusable(found: Inspection) -> list[str]:
    if not found.num_unusable:
        return ["none"]
    rest = found.num_unusable - len(found.messages)
    return [f"{found.num_unusable:,}", *found.messages, *[f"... and {rest:,} more"] * bool(rest)]


def _duplicates(found: Inspection) -> list[str]:
    if not found.num_repeated:
        return ["none"]
    noun = "picture has" if found.num_repeated == 1 else "pictures have"
    return [
        f"{found.num_repeated:,} {noun} the same pixels as another",
        *(" = ".join(names) for names in found.repeated),
    ]


def _histogram(counts: Counter[str]) -> list[str]:
    """Return the commonest values with how often they occur."""
    shown = counts.most_common(_MAX_LINES)
    width = max((len(value) for value, _ in shown), default=0)
    rest = len(counts) - len(shown)
    return [f"{value:<{width}} {count:>9,}" for value, count in shown] + [f"... and {rest:,} more"] * bool(rest)


def _section(title: str, lines: Sequence[str]) -> list[str]:
    """Return lines with a title before the first one."""
    return [f"{title if number == 0 else '':<{_INDENT}}{line}" for number, line in enumerate(lines)]
