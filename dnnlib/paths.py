"""Paths as users type them, and one check for every path that is written: it is not inside what is read as images."""

import os
from collections.abc import Iterator
from pathlib import Path


def user_path(text: str | Path) -> Path:
    """Return a path with ~ and ~user expanded; as it is if there is no such user."""
    return Path(os.path.expanduser(text))


def require_outside(written: str | Path, option: str, read: str | Path, source: str) -> None:
    """Raise ValueError where a path to write is a folder of images or lies inside it, or inside a folder linked there.

    Args:
        written: File or folder that a program will write.
        option: That names it, such as --outdir.
        read: Data set or source: a folder, or a file, inside which nothing can be.
        source: The option that names it, such as --data.
    """
    inner, outer = Path(os.path.realpath(user_path(written))), user_path(read)
    above = {identity for path in (inner, *inner.parents) if (identity := _identity(path))}
    if above & {_identity(outer), *map(_identity, _linked_folders(outer))}:
        raise ValueError(
            f"{option}={written} lies inside {source}={read}: what is written there would be read as images the next "
            f"time. Name a folder outside of it"
        )


def _identity(path: str | Path) -> tuple[int, int] | None:
    """Return what a file or folder is, whatever its name: links, bind mounts and letter case do not matter."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _linked_folders(folder: Path) -> Iterator[str]:
    """Yield the links to folders in a folder and its sub-folders; images are read through them."""
    for parent, names, _ in os.walk(folder):
        yield from (path for path in (os.path.join(parent, name) for name in names) if os.path.islink(path))
