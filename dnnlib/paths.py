"""One check for every path that is written: it never lies inside what is read as images."""

from pathlib import Path


def require_outside(written: str | Path, option: str, read: str | Path, source: str) -> None:
    """Raise ValueError where a path to write is a folder of images or lies inside it, links followed.

    Args:
        written: File or folder that a program will write.
        option: That names it, such as --outdir.
        read: Data set or source: a folder, or a file, inside which nothing can be.
        source: The option that names it, such as --data.
    """
    inner, outer = Path(written).expanduser().resolve(), Path(read).expanduser().resolve()
    if inner == outer or (outer.is_dir() and outer in inner.parents):
        raise ValueError(
            f"{option}={written} lies inside {source}={read}: what is written there would be read as images the next "
            f"time. Name a folder outside of it"
        )
