"""The command of generate.py that shows a network in the browser."""

import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from sampling.commands import options
from sampling.commands.options import command


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
    command line. Needs gradio: pip install gradio

    \b
    Examples:
      python generate.py explore --network=network-snapshot-000040.pkl
      python generate.py explore --network=network-snapshot-000040.pkl --share
    """
    if find_spec("gradio") is None:
        raise ValueError("generate.py explore needs gradio: pip install gradio")
    if not Path(chosen["network"]).is_file():
        raise ValueError(f"--network={chosen['network']}: there is no such file")
    check_port(chosen["host"], chosen["port"])
    from sampling.explore.page import serve

    serve(chosen["network"], chosen["host"], chosen["port"], chosen["share"])


def check_port(host: str, port: int) -> None:
    """Raise ValueError unless the page can be served there; before anything is loaded."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise ValueError(
            f"--port={port} of --host={host} cannot be used ({error.strerror}); choose another, such as --port={port % 65535 + 1}"
        ) from None
