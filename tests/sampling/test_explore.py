"""The views of generate.py explore: their addresses and commands, and messages before a page is there."""

import socket
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
import torch
from scripts import run

from sampling.commands.network_commands import check_port
from sampling.explore.view import View, style_groups


@pytest.mark.parametrize(
    "view",
    [
        View(),
        View(
            7, "number:2", 0.65, "random", 9, 3, "network-snapshot-000002.pkl", {("coarse", 0): 1.5, ("all", 3): -0.1}
        ),
        View(2**32 - 1, "0.7,0,0.3", -1.0, mix=0, mix_from=0),
    ],
)
def test_a_view_comes_back_from_its_address(view: View) -> None:
    assert View.from_query(dict(parse_qsl(view.query())), num_ws=8) == view


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("seed=-1", "seed"), ("seed=4294967296", "seed"), ("mix_from=8", "mix_from"),
        ("trunc=-1.5", "trunc"), ("seed=x", "seed"), ("mix=1e3", "mix"), ("trunc=nan", "nan"),
        ("trunc=7", "trunc"), ("noise=loud", "noise"), ("move=all.0", "move|number"), ("move=top.0:1", "move"),
        ("move=all.99:1", "move"), ("move=all.0:7", "move"), ("move=all.0:inf", "move|inf"), ("mix_from=a", "mix_from"),
    ],
)  # fmt: skip
def test_wrong_addresses_are_refused(query: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        View.from_query(dict(parse_qsl(query)), num_ws=8)


@pytest.mark.parametrize("num_ws", [1, 2, 3, 8, 18])
def test_coarse_middle_and_fine_are_all_styles_once(num_ws: int) -> None:
    groups = style_groups(num_ws)
    parts = [style for name, group in groups.items() if name != "all" for style in group]
    assert parts == list(groups["all"]) == list(range(num_ws))


def explore(*arguments: str) -> str:
    pytest.importorskip("gradio", reason="gradio is not installed: pip install gradio")
    return run("generate", "explore", *arguments, ok=False)


def test_what_cannot_be_shown_is_one_line(tmp_path: Path) -> None:
    assert "there is no such file" in explore("--network=missing.pkl")
    broken = tmp_path / "network-snapshot-000001.pkl"
    torch.save({"format": "something else"}, broken)
    assert str(broken) in explore(f"--network={broken}")


def test_a_port_that_cannot_be_used_is_named(explorable: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"--port={port}" in explore(f"--network={explorable}", f"--port={port}")


@pytest.mark.parametrize("host", ["203.0.113.7", "::1", "no.such.host.invalid"])
def test_a_host_that_cannot_be_used_is_named(host: str) -> None:
    with pytest.raises(
        ValueError, match=rf"--host={host} is no IPv4 address of this machine .*; choose 127\.0\.0\.1"
    ) as caught:
        check_port(host, 7860)
    assert "--port" not in str(caught.value)
