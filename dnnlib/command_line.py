"""Scripts that do one thing by themselves and others by sub-commands; errors in one line."""

import re
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

SETTINGS = {"show_default": True, "max_content_width": 110}  # of every command

# How PyTorch, which is not imported here, says it in RuntimeErrors that have no class of their own.
_NO_MEMORY = re.compile(
    r"DefaultCPUAllocator: .*(can't|not enough)|CUDA (error: )?out of memory|CUBLAS_STATUS_ALLOC|MemoryError: "
)


class Command(click.Command):
    """A command whose own errors are one line; its option --debug shows the traceback instead."""

    def invoke(self, context: click.Context) -> Any:
        """Run it. Raises ClickException for the errors that our checks raise, and for a lack of memory."""
        try:
            return super().invoke(context)
        except (ValueError, OSError, MemoryError, RuntimeError) as error:
            message = str(error) if isinstance(error, ValueError | OSError) else memory_shortage(error)
            if message is None or context.params.get("debug"):
                raise
            raise click.ClickException(message) from error


def memory_shortage(error: Exception) -> str | None:
    """Return the message of an error in one line if memory has run out, of the machine or of its GPU; None if not."""
    text = str(error)
    names = [kind.__name__ for kind in type(error).__mro__]
    if not ("MemoryError" in names or "OutOfMemoryError" in names or _NO_MEMORY.search(text)):
        return None
    place = " on the GPU" if re.search("CUDA|CUBLAS", text) else ""
    amount = re.search(r"allocate (\d+(?:\.\d+)?)\.? ?([A-Za-z]+)", text)
    wanted = f" for {amount[1]} {amount[2]} more" if amount else ""
    return f"not enough memory{place}{wanted}; use smaller numbers"


class Script(click.Group):
    """`script.py COMMAND --options` runs a sub-command, `script.py --options` the script's own one.

    The help of its own command lists the others.
    """

    command_class = Command
    own: click.Command

    def own_command(self, function: Callable[..., Any]) -> click.Command:
        """Make a function, below its options, what runs where no sub-command is named."""
        self.own = click.command(cls=_OwnCommand, script=self, context_settings=SETTINGS)(function)
        return self.own

    def main(self, args: Sequence[str] | None = None, *rest: Any, **settings: Any) -> Any:
        """Run what the arguments ask for; None = those of the process."""
        args = sys.argv[1:] if args is None else list(args)
        if args and not args[0].startswith("-"):
            return super().main(args, *rest, **settings)
        return self.own.main(args, *rest, **settings)


class _OwnCommand(Command):
    """The command of a script that has others beside it."""

    def __init__(self, *given: Any, script: Script, **settings: Any) -> None:
        super().__init__(*given, **settings)
        self.script = script

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Read the options. Raises UsageError, which says so where a command was named behind some of them."""
        given = list(args)  # parsing empties the list
        try:
            return super().parse_args(context, args)
        except click.UsageError as error:
            index = self._find_command(context, given)
            if index is None:
                raise
            line = shlex.join([given[index], *given[:index], *given[index + 1 :]])
            raise click.UsageError(f"the command comes first: {context.command_path} {line}", context) from error

    def _find_command(self, context: click.Context, args: list[str]) -> int | None:
        """Return where a command of the script is named, as no option's value; None = nowhere."""
        for index, word in enumerate(args):
            if word in self.script.commands and self._words(context, args[: index + 1])[-1:] == [word]:
                return index
        return None

    def _words(self, context: click.Context, args: list[str]) -> list[str]:
        """Return the arguments that are neither options of this command nor their values; none if that is unclear."""
        parser = self.make_parser(context)
        parser.ignore_unknown_options = True
        try:
            return parser.parse_args(args)[1]
        except click.UsageError:
            return []

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the commands."""
        super().format_options(context, formatter)
        self.script.format_commands(context, formatter)
