"""Names of files and classes: `normal_name` for every name that is read, `printable` for every name that is shown."""

import re
import unicodedata

_UNPRINTABLE = re.compile("[\0-\x1f\x7f\ud800-\udfff]")  # Python has \udc80-\udcff for bytes that are not UTF-8


def normal_text(text: str) -> str:
    """Return text in composed Unicode (NFC); control characters and bytes that are not UTF-8 become %XX."""
    if text.isascii() and text.isprintable():
        return text
    return unicodedata.normalize("NFC", _UNPRINTABLE.sub(lambda match: f"%{ord(match[0]) & 0xFF:02X}", text))


def normal_name(name: str) -> str:
    """Return the one spelling of a file name relative to its data set: "./a\\\\b.png" gives "a/b.png"."""
    name = normal_text(name).replace("\\", "/")
    if "//" in name or "./" in name or name.endswith("/."):
        name = "/".join(part for part in name.split("/") if part not in ("", "."))
    return name


def both_shown(first: str, second: str) -> str:
    """Return two names in quotes, with Unicode escapes where they look the same but are not."""
    shown = [printable(first), printable(second)]
    if first != second and len(set(map(normal_text, shown))) == 1:
        shown = [ascii(name)[1:-1] for name in (first, second)]
    return f'"{shown[0]}" and "{shown[1]}"'


def printable(text: str) -> str:
    """Return text in one line that any UTF-8 file or terminal can show; control characters are escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
