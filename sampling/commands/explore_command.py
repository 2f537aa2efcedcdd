"""The command of generate.py that shows a network in the browser."""

import socket
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from sampling.commands import options
from sampling.commands.options import command

GRADIO = (6, 31)  # the oldest version that works


@command("explore")
@options.network
@click.option("--port", default=7860, type=click.IntRange(1, 65535), metavar="N", help="Port of the page.")
@click.option(
    "--host", default="127.0.0.1", metavar="ADDRESS", help="Address to listen on; 0.0.0.0 = the whole network."
)
@click.option("--share", is_flag=True, help="Also give the page a public address for a week, as Colab needs.")
@options.debug
def explore_command(**chosen: Any) -> None:
    """Explore a network in the browser: seeds, classes, mixing, directions, attention, walks, projection.

    Serves a page on this machine until Ctrl-C. The address of the page holds the settings, and each image has its
    command line. Needs gradio: pip install 'gradio>=6.31'

    \b
    Examples:
      python generate.py explore --network=network-snapshot-000040.pkl
      python generate.py explore --network=network-snapshot-000040.pkl --share
    """
    check_gradio()
    check_port(chosen["host"], chosen["port"])
    click.echo("Loading the network and gradio ...")
    from sampling.explore.page import serve
    from training.checkpoint.files import existing_file

    network, address = existing_file(chosen["network"]), click.get_current_context().meta["address"]
    serve(network, chosen["ema"], chosen["host"], chosen["port"], chosen["share"], address)


def check_gradio() -> None:
    """Raise ValueError unless gradio is there, and new enough."""
    try:
        found = version("gradio")
    except PackageNotFoundError:
        found = ""
    if not found or tuple(map(int, found.split(".")[:2])) < GRADIO:
        least = f"gradio>={GRADIO[0]}.{GRADIO[1]}"
        has = f"; gradio {found} is too old" if found else ""
        raise ValueError(f"generate.py explore needs {least}{has}: pip install '{least}'")


def check_port(host: str, port: int) -> None:
    """Raise ValueError unless the page can be served there; before anything is loaded."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise ValueError(
            f"--port={port} of --host={host} cannot be used ({error.strerror}); choose another, such as --port={port % 65535 + 1}"
        ) from None
