"""Scripts with a command of their own and others beside it."""

from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from dnnlib.command_line import SETTINGS, Script


@pytest.fixture
def script() -> Script:
    main = Script(context_settings=SETTINGS)

    @main.own_command
    @click.option("--size", type=int, required=True)
    @click.option("--debug", is_flag=True)
    def own(size: int, debug: bool) -> None:
        """Do the usual."""
        print("own", size)

    @main.command()
    @click.option("--colour", default="blue")
    @click.option("--debug", is_flag=True)
    def paint(colour: str, debug: bool) -> None:
        """Paint."""
        if colour == "octarine":
            raise ValueError("--colour=octarine: choose one that is there")
        if colour == "none":
            raise FileNotFoundError(2, "No such file", "none.png")
        print("paint", colour)

    return main


def call(script: Script, *arguments: str) -> Result:
    class Runner(CliRunner):
        def get_default_prog_name(self, cli: Any) -> str:
            return "script.py"

    return Runner().invoke(script, list(arguments))


def test_own_command_runs_where_no_other_is_named(script: Script) -> None:
    assert call(script, "--size=3").output == "own 3\n"
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
