"""A console that is closed, full or absent costs lines, never the program."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TextIO


class Console:
    """A text stream whose failures are silent: after the first one, everything goes to the null device."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return self._stream.isatty()
        return False

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except (OSError, ValueError):
            self._discard()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._discard()

    def _discard(self) -> None:
        """Send this file descriptor to the null device, with what is buffered for it."""
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


def protect_console() -> None:
    """Make sys.stdout and sys.stderr of this process survive a console that vanishes; absent ones become the null device."""
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:  # a closed descriptor 1 would be given to the next file opened
        pass
    os.close(null)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # open to the end
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names of files may not be in its encoding
        if not isinstance(stream, Console):
            setattr(sys, name, Console(stream))


@contextlib.contextmanager
def plain_warnings(show: Callable[[str], None]) -> Iterator[None]:
    """Show Python's warnings as lines "Warning: ...", without the place in the code."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *rest: show(f"Warning: {message}")
        yield
