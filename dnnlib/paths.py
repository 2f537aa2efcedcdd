"""Paths as users type them, and one check for every path that is written: it is not inside what is read as images."""

import os
from pathlib import Path


def user_path(text: str | Path) -> Path:
    """Return a path with ~ and ~user expanded; as it is if there is no such user."""
    return Path(os.path.expanduser(text))


def require_outside(written: str | Path, option: str, read: str | Path, source: str) -> None:
    """Raise ValueError where a path to write is a folder of images or lies inside it, links followed.

    Args:
        written: File or folder that a program will write.
        option: That names it, such as --outdir.
        read: Data set or source: a folder, or a file, inside which nothing can be.
        source: The option that names it, such as --data.
    """
    inner, outer = user_path(written).resolve(), user_path(read).resolve()
    if inner == outer or (outer.is_dir() and outer in inner.parents):
        raise ValueError(
            f"{option}={written} lies inside {source}{'=' if source.startswith('--') else ' '}{read}: what is written there "
            f"would become part of the images. Name a folder outside of it"
        )
