"""The report of an inspection, with the command that makes the source fit for train.py."""

from collections import Counter
from collections.abc import Callable, Sequence

from dnnlib.packing.inspection import MAX_CLASS_COLUMNS, Inspection
from dnnlib.sources.source_images import ImageSource

Refusal = Callable[[int, int], str | None]  # of width and height: why train.py cannot train on them; None if it can

_MAX_LINES = 8  # of a histogram
_MAX_CLASSES = MAX_CLASS_COLUMNS
_INDENT = 12
_SIDES_PX = (256, 128, 96, 64, 48, 32)  # to propose
_SHARE = 0.9  # of the images must not be enlarged


def report(found: Inspection, images: ImageSource, chosen: Sequence[str], refusal: Refusal) -> list[str]:
    """Return the lines to print."""
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
    return [
        f"{found.num_repeated:,} {noun} the same pixels as another",
        *(" = ".join(names) for names in found.repeated),
    ]


def _histogram(counts: Counter[str]) -> list[str]:
    shown = counts.most_common(_MAX_LINES)
    width = max((len(value) for value, _ in shown), default=0)
    rest = len(counts) - len(shown)
    return [f"{value:<{width}} {count:>9,}" for value, count in shown] + [f"... and {rest:,} more"] * bool(rest)


def _section(title: str, lines: Sequence[str]) -> list[str]:
    """Return lines with a title before the first one."""
    return [f"{title if number == 0 else '':<{_INDENT}}{line}" for number, line in enumerate(lines)]
