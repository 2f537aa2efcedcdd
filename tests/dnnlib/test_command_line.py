"""Scripts with a command of their own and others beside it."""

from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from dnnlib.command_line import SETTINGS, Script


class OutOfMemoryError(RuntimeError):
    """Named as that of PyTorch."""


SHORTAGES: dict[str, tuple[Exception, str]] = {  # by the colour that asks for it: the error and its message
    "bare": (MemoryError(), "not enough memory; use smaller numbers"),
    "gpu": (
        OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 8.00 GiB"),
        "not enough memory on the GPU for 20.00 GiB more; use smaller numbers",
    ),
    "cpu": (
        RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000 bytes."),
        "not enough memory for 4000 bytes more; use smaller numbers",
    ),
    "driver": (RuntimeError("CUDA error: out of memory"), "not enough memory on the GPU; use smaller numbers"),
}


@pytest.fixture
def script() -> Script:
    main = Script(context_settings=SETTINGS)

    @main.own_command
    @click.option("--size", type=int, required=True)
    @click.option("--name", default="")
    @click.option("--debug", is_flag=True)
    def own(size: int, name: str, debug: bool) -> None:
        """Do the usual."""
        print("own", size, name)

    @main.command()
    @click.option("--colour", default="blue")
    @click.option("--debug", is_flag=True)
    def paint(colour: str, debug: bool) -> None:
        """Paint."""
        if colour == "octarine":
            raise ValueError("--colour=octarine: choose one that is there")
        if colour == "none":
            raise FileNotFoundError(2, "No such file", "none.png")
        if colour == "numpy":
            np.empty(2**55)
        if colour == "broken":
            raise RuntimeError("shapes do not match")
        if colour in SHORTAGES:
            raise SHORTAGES[colour][0]
        print("paint", colour)

    return main


def call(script: Script, *arguments: str) -> Result:
    class Runner(CliRunner):
        def get_default_prog_name(self, cli: Any) -> str:
            return "script.py"

    return Runner().invoke(script, list(arguments))


def test_own_command_runs_where_no_other_is_named(script: Script) -> None:
    assert call(script, "--size=3").output == "own 3 \n"
    assert call(script, "paint", "--colour=red").output == "paint red\n"


def test_help_lists_options_and_commands(script: Script) -> None:
    output = call(script, "--help").output
    assert "Usage: script.py [OPTIONS]" in output
    assert "Do the usual." in output
    assert "--size INTEGER" in output
    assert "Commands:\n  paint  Paint." in output
    output = call(script, "paint", "--help").output
    assert "Usage: script.py paint [OPTIONS]" in output
    assert "[default: blue]" in output
    assert "Commands:" not in output


def test_what_is_missing_or_unknown_is_said(script: Script) -> None:
    assert "Missing option '--size'" in call(script).output
    done = call(script, "pant", "--colour=red")
    assert done.exit_code == 2
    assert "No such command 'pant'" in done.output


def test_errors_of_checks_are_one_line_unless_debugging(script: Script) -> None:
    done = call(script, "paint", "--colour=octarine")
    assert done.exit_code == 1
    assert done.output == "Error: --colour=octarine: choose one that is there\n"
    assert call(script, "paint", "--colour=none").output.startswith("Error: [Errno 2] No such file")
    assert isinstance(call(script, "paint", "--colour=octarine", "--debug").exception, ValueError)


@pytest.mark.parametrize("kind", SHORTAGES)
def test_lack_of_memory_is_one_line_unless_debugging(script: Script, kind: str) -> None:
    done = call(script, "paint", f"--colour={kind}")
    assert (done.exit_code, done.output) == (1, f"Error: {SHORTAGES[kind][1]}\n")
    assert call(script, "paint", f"--colour={kind}", "--debug").exception is SHORTAGES[kind][0]


def test_array_too_large_for_memory_is_one_line(script: Script) -> None:
    output = call(script, "paint", "--colour=numpy").output
    assert output == "Error: not enough memory for 256 PiB more; use smaller numbers\n"


def test_other_runtime_errors_keep_their_traceback(script: Script) -> None:
    assert isinstance(call(script, "paint", "--colour=broken").exception, RuntimeError)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--size=3", "paint", "--colour=red"], "paint --size=3 --colour=red"),  # an option that only paint has
        (["--size=3", "paint"], "paint --size=3"),  # an argument too many
        (["--debug", "paint"], "paint --debug"),  # a missing option
        (["--colour=dark red", "paint"], "paint '--colour=dark red'"),
        (["--name", "paint", "paint", "--colour=red"], "paint --name paint --colour=red"),
    ],
)
def test_command_behind_options_is_told_to_come_first(script: Script, arguments: list[str], line: str) -> None:
    done = call(script, *arguments)
    assert done.exit_code == 2
    assert done.output.endswith(f"Error: the command comes first: script.py {line}\n")


def test_value_that_is_the_name_of_a_command_is_none(script: Script) -> None:
    assert call(script, "--size=3", "--name", "paint").output == "own 3 paint\n"
    assert "Missing option '--size'" in call(script, "--name", "paint").output
    assert "No such option '--color'" in call(script, "--name", "paint", "--color=red").output
    assert "Option '--name' requires an argument" in call(script, "--size=3", "--name").output
