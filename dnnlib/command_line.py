"""Shared by command lines: settings, and errors in one line."""

import contextlib
import errno
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import click

from dnnlib.dataclass_values import ConfigError, require_representable
from dnnlib.names import printable

SETTINGS = {"show_default": True, "max_content_width": 110}  # of every command

# Messages of PyTorch, which is not imported here, in RuntimeErrors without a class of their own.
_NO_MEMORY = re.compile(
    r"DefaultCPUAllocator: .*(can't|not enough)|CUDA (error: )?out of memory|(CUBLAS|CUDNN)_STATUS_ALLOC|MemoryError: "
)


class UsageLine(click.ClickException):
    exit_code = 2


class OneLineUsage(click.Command):
    """Its errors about options are one line that names the remedy, instead of usage, hint and error."""

    other_names: ClassVar[Mapping[str, str]] = {}  # options of similar programs -> what to write here

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with self._one_line():
            context = super().make_context(*args, **kwargs)
            for option in self.params:
                self._check_numbers(option, context)
            return context

    def invoke(self, context: click.Context) -> Any:
        with self._one_line():
            return super().invoke(context)

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except click.UsageError as error:
            raise UsageLine(self._explain(error)) from None

    def _check_numbers(self, option: click.Parameter, context: click.Context) -> None:
        value = context.params.get(option.name or "")
        for number in value if isinstance(value, list | tuple) else [value]:
            try:
                require_representable(number, option.opts[0])
            except ConfigError as error:
                raise click.UsageError(str(error), context) from None

    def _explain(self, error: click.UsageError) -> str:
        if isinstance(error, click.NoSuchOption):
            return f"no such option {error.option_name}; {self._instead(error)}"
        if isinstance(error, click.BadOptionUsage):
            option = next((item for item in self.params if error.option_name in item.opts), None)
            if option is None:
                return error.message
            is_flag = getattr(option, "is_flag", False)
            return f"{error.option_name} {'takes no' if is_flag else 'needs a'} value; write {_form(option)}"
        if isinstance(error, click.MissingParameter) and error.param:
            return f"{error.param.opts[0]} is missing; write {_form(error.param)}"
        if isinstance(error, click.BadParameter) and error.param:
            reason = error.message.rstrip(".")
            for theirs, ours in _TYPES.items():
                reason = re.sub(f"is not a valid {theirs}", ours, reason, flags=re.DOTALL)
            has_remedy = error.param.callback is not None or isinstance(error.param.type, click.Choice)
            return f"{error.param.opts[0]}: {reason}" + ("" if has_remedy else f"; write {_form(error.param)}")
        return error.format_message()

    def _instead(self, error: click.NoSuchOption) -> str:
        name = error.option_name.replace("_", "-").lower()
        known = {option for parameter in self.params for option in parameter.opts}
        if remedy := self.other_names.get(name) or (name if name in known else None):
            return f"write {remedy}"
        close = sorted(error.possibilities or ())
        return f"did you mean {' or '.join(close)}?" if close else "--help lists all"


_TYPES = {
    "integer( range)?": "is not a whole number",
    "float( range)?": "is not a number",
    "boolean.*": "is neither 1 nor 0",
}


def _form(option: click.Parameter) -> str:
    """How to write an option, and what it means."""
    name = option.opts[0]
    if option.type is click.BOOL:
        return f"{name}=1 or {name}=0"
    if getattr(option, "is_flag", False):
        return name
    choices = "|".join(map(str, option.type.choices)) if isinstance(option.type, click.Choice) else None
    meaning = (getattr(option, "help", None) or "").split("  [")[0].rstrip(".")
    return f"{name}={choices or option.metavar}" + (f" ({meaning})" if meaning else "")


class Command(OneLineUsage):
    """A command whose own errors are one line; its option --debug shows the traceback instead."""

    def invoke(self, context: click.Context) -> Any:
        with one_line_errors(bool(context.params.get("debug"))):
            return super().invoke(context)


class Group(OneLineUsage, click.Group):
    """A group of commands whose errors about options are one line.

    Its context holds the words of the command line without that of the command.
    """

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        words = list(args)
        after = super().parse_args(context, args)
        context.obj = words[: len(words) - len(after) - 1] + after
        return after


@contextlib.contextmanager
def one_line_errors(debug: bool) -> Iterator[None]:
    """Turn ValueError, OSError and a lack of memory into ClickException, unless debugging."""
    try:
        yield
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        message = str(error) if isinstance(error, ValueError | OSError) else memory_shortage(error)
        if isinstance(error, OSError) and error.filename:
            remedy = (
                "or free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "or change its permissions"
            )
            message = f"{error.filename} cannot be used: {error.strerror}; give another path, {remedy}"
        if message is None or debug:
            raise
        raise click.ClickException("\n".join(map(printable, message.split("\n")))) from error


def memory_shortage(error: Exception) -> str | None:
    """Return a message in one line if memory of the machine or GPU has run out; None for other errors."""
    text = str(error)
    names = [kind.__name__ for kind in type(error).__mro__]
    if not ("MemoryError" in names or "OutOfMemoryError" in names or _NO_MEMORY.search(text)):
        return None
    place = " on the GPU" if re.search("CUDA|CUBLAS|CUDNN", text) else ""
    amount = re.search(r"allocate (\d+(?:\.\d+)?)\.? ?([A-Za-z]+)", text)
    wanted = f" for {amount[1]} {amount[2]} more" if amount else ""
    return f"not enough memory{place}{wanted}; use smaller numbers"
