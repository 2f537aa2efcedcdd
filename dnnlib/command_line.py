"""Scripts that do one thing by themselves and others by sub-commands; errors in one line."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

SETTINGS = {"show_default": True, "max_content_width": 110}  # of every command


class Command(click.Command):
    """A command whose own errors are one line; its option --debug shows the traceback instead."""

    def invoke(self, context: click.Context) -> Any:
        """Run it. Raises ClickException for the errors that our checks raise: their messages say what to do."""
        try:
            return super().invoke(context)
        except (ValueError, OSError) as error:
            if context.params.get("debug"):
                raise
            raise click.ClickException(str(error)) from error


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

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the commands."""
        super().format_options(context, formatter)
        self.script.format_commands(context, formatter)
