"""The layout of all images as dataset.json declares it, which saves reading every header at the start."""

import json

from dnnlib.archive.image_tree import ImageTree
from dnnlib.archive.label_table import MAX_BYTES
from dnnlib.images.codec import Layout

KEY = "image_format"  # in dataset.json; StyleGAN2-ADA's readers look at "labels" alone
BITS = 8  # per channel

_MAX_SIDE_PX = 2**16


def format_note(layout: Layout, count: int) -> dict[str, int]:
    """Return the value of KEY for so many images of one layout."""
    return {"width": layout.width, "height": layout.height, "channels": layout.channels, "bits": BITS, "count": count}


def declared_layout(tree: ImageTree, count: int) -> Layout | None:
    """Return the layout that dataset.json declares for all `count` images of a folder or zip.

    None if it declares none, or for another number of images: then files were added or removed since it was written, and
    the headers have to be read. Invalid JSON is left to `read_label_table`.

    Raises:
        ValueError: A note that `format_note` does not make.
    """
    if tree.label_file is None:
        return None
    with tree.named_errors(tree.label_file):
        text = tree.read(tree.label_file, MAX_BYTES)
    if KEY.encode() not in text:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or KEY not in content:
        return None
    layout, noted_count = _parse(content[KEY], tree.origin(tree.label_file))
    return layout if noted_count == count else None


def _parse(note: object, origin: str) -> tuple[Layout, int]:
    limits = {"width": _MAX_SIDE_PX, "height": _MAX_SIDE_PX, "channels": 3, "bits": BITS, "count": 2**31}
    values = note if isinstance(note, dict) else {}
    is_sound = all(type(values.get(name)) is int and 1 <= values[name] <= limit for name, limit in limits.items())
    if not (is_sound and values["channels"] in (1, 3) and values["bits"] == BITS):
        raise ValueError(
            f'{origin}: "{KEY}" is {str(note)[:120]}; it must be like {json.dumps(format_note(Layout(32, 32, 3), 9))}: '
            f"remove it, and the headers of all images are read instead"
        )
    return Layout(values["width"], values["height"], values["channels"]), values["count"]
