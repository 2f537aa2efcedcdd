"""Shared by command lines: settings, and errors in one line."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import click

SETTINGS = {"show_default": True, "max_content_width": 110}  # of every command

# Messages of PyTorch, which is not imported here, in RuntimeErrors without a class of their own.
_NO_MEMORY = re.compile(
    r"DefaultCPUAllocator: .*(can't|not enough)|CUDA (error: )?out of memory|CUBLAS_STATUS_ALLOC|MemoryError: "
)


class Command(click.Command):
    """A command whose own errors are one line; its option --debug shows the traceback instead."""

    def invoke(self, context: click.Context) -> Any:
        with one_line_errors(bool(context.params.get("debug"))):
            return super().invoke(context)


@contextlib.contextmanager
def one_line_errors(debug: bool) -> Iterator[None]:
    """Turn ValueError, OSError and a lack of memory into ClickException, unless debugging."""
    try:
        yield
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        message = str(error) if isinstance(error, ValueError | OSError) else memory_shortage(error)
        if message is None or debug:
            raise
        raise click.ClickException(message) from error


def memory_shortage(error: Exception) -> str | None:
    """Return a message in one line if memory of the machine or GPU has run out; None for other errors."""
    text = str(error)
    names = [kind.__name__ for kind in type(error).__mro__]
    if not ("MemoryError" in names or "OutOfMemoryError" in names or _NO_MEMORY.search(text)):
        return None
    place = " on the GPU" if re.search("CUDA|CUBLAS", text) else ""
    amount = re.search(r"allocate (\d+(?:\.\d+)?)\.? ?([A-Za-z]+)", text)
    wanted = f" for {amount[1]} {amount[2]} more" if amount else ""
    return f"not enough memory{place}{wanted}; use smaller numbers"
