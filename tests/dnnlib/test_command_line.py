"""Errors of commands in one line."""

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from dnnlib.command_line import SETTINGS, Command


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


@click.command(cls=Command, context_settings=SETTINGS)
@click.option("--colour", default="blue", metavar="NAME", help="Colour of it all.  [default: blue]")
@click.option("--coats", type=click.IntRange(1), default=1, metavar="N", help="Layers of paint.")
@click.option("--wet", type=bool, metavar="BOOL", help="Paint on wet ground.")
@click.option("--brush", type=click.Choice(["wide", "fine"]), help="What to paint with.")
@click.option("--debug", is_flag=True)
def paint(colour: str, debug: bool, **others: object) -> None:
    """Paint."""
    if colour == "octarine":
        raise ValueError("--colour=octarine: choose one that is there")
    if colour == "lines":
        raise ValueError("--colour=lines: download it:\n  curl \x1b[31m")
    if colour == "none":
        raise FileNotFoundError(2, "No such file", "none.png")
    if colour == "numpy":
        np.empty(2**55)
    if colour == "broken":
        raise RuntimeError("shapes do not match")
    if colour in SHORTAGES:
        raise SHORTAGES[colour][0]
    print("paint", colour)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(paint, list(arguments))


def test_errors_of_checks_are_one_line_unless_debugging() -> None:
    done = call("--colour=octarine")
    assert done.exit_code == 1
    assert done.output == "Error: --colour=octarine: choose one that is there\n"
    assert call("--colour=lines").output == "Error: --colour=lines: download it:\n  curl \\x1b[31m\n"
    assert call("--colour=none").output.startswith("Error: none.png cannot be used: No such file; give another path")
    assert isinstance(call("--colour=octarine", "--debug").exception, ValueError)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--color=red", "no such option --color; did you mean --colour?"),
        ("--xyzzy=red", "no such option --xyzzy; --help lists all"),
        ("--colour", "--colour needs a value; write --colour=NAME (Colour of it all)"),
        ("--coats=1e23", "--coats: '1e23' is not a whole number; write --coats=N (Layers of paint)"),
        ("--coats=0", "--coats: 0 is not in the range x>=1; write --coats=N (Layers of paint)"),
        (f"--coats={10**23}", f"--coats is too large; at most {2**63 - 1}"),
        ("--wet=dry", "--wet: 'dry' is neither 1 nor 0; write --wet=1 or --wet=0"),
        ("--brush=broom", "--brush: 'broom' is not one of 'wide', 'fine'"),
        ("--debug=1", "--debug takes no value; write --debug"),
    ],
)
def test_wrong_options_are_one_line_with_what_to_write(words: str, line: str) -> None:
    done = call(words)
    assert (done.exit_code, done.output) == (2, f"Error: {line}\n")


@pytest.mark.parametrize("kind", SHORTAGES)
def test_lack_of_memory_is_one_line_unless_debugging(kind: str) -> None:
    done = call(f"--colour={kind}")
    assert (done.exit_code, done.output) == (1, f"Error: {SHORTAGES[kind][1]}\n")
    assert call(f"--colour={kind}", "--debug").exception is SHORTAGES[kind][0]
    assert call("--colour=numpy").output == "Error: not enough memory for 256 PiB more; use smaller numbers\n"
    assert isinstance(call("--colour=broken").exception, RuntimeError)  # others keep their traceback
