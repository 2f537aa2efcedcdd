"""Files and folders that appear under their name complete, or not at all."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that takes its name only when the block ends without an error.

    Until then it lies under a hidden temporary name in the same folder; an error removes it and leaves an older file
    of the same name as it was.

    Args:
        path: The final name; the folder must exist.
        mode: "wb" for bytes, "w" for UTF-8 text.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode={mode!r} is not supported; use 'wb' or 'w'")
    path = Path(path)
    temporary = temporary_name(path)
    try:
        # "x" and not a tempfile: those are readable by their owner only, whatever the umask says.
        with open(temporary, mode.replace("w", "x"), encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Give a folder to fill that takes its name, in place of an older folder, when the block ends without an error."""
    path = Path(path)
    temporary, replaced = temporary_name(path), temporary_name(path)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            path.rename(replaced)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def temporary_name(path: Path) -> Path:
    """Return a hidden, unused name beside `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
