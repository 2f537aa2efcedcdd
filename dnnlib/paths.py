"""Paths as users type them, and one check for every path that is written: it is not inside what is read as images."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

_ADDRESS = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")


def user_path(text: str | Path) -> Path:
    """Return a path with ~ and ~user expanded; as it is if there is no such user. ValueError if it is empty or an address."""
    if _ADDRESS.match(str(text)):
        raise ValueError(f"{text} is an address; download it and give the path of the file")
    if not str(text):
        raise ValueError("an empty path was given, perhaps of a shell variable that is not set; name a file or folder")
    return Path(os.path.expanduser(text))


def require_outside(written: str | Path, option: str, read: str | Path, source: str) -> None:
    """Raise ValueError where a path to write is a folder of images or lies inside it, or inside a folder linked there.

    Args:
        written, option: File or folder that a program will write, and the option that names it, such as --outdir.
        read, source: Data set, inside which nothing can be if it is a file, and the option that names it, such as --data.
    """
    inner, outer = (Path(os.path.realpath(user_path(path))) for path in (written, read))
    if any(place == inner or place in inner.parents for place in _places_of(outer)):
        raise ValueError(
            f"{option}={written} lies inside {source}{'=' if source.startswith('--') else ' '}{read}: what is written there "
            f"would become part of the images. Name a folder outside of it"
        )


def _places_of(path: Path) -> Iterator[Path]:
    """Yield a file or folder and what the links in the folder point to, resolved."""
    found = [path]
    for place in found:
        yield place
        for folder, subfolders, names in os.walk(place):
            links = [os.path.join(folder, name) for name in subfolders + names]
            targets = (Path(os.path.realpath(link)) for link in links if os.path.islink(link))
            found += [target for target in targets if target not in found]
