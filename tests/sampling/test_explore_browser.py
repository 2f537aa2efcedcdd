"""generate.py explore in Chromium: every tab, and each image equal to that of the command the page names for it."""

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from generate import main

pytest.importorskip("gradio", reason="gradio is not installed: pip install gradio")
sync_api = pytest.importorskip("playwright.sync_api", reason="the development package playwright is not installed")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
    pytest.mark.xdist_group("explore"),
]
ROOT = Path(__file__).parents[2]
WAIT_SEC = 60


@pytest.fixture(scope="module")
def network(explorable: Path) -> Path:
    """A snapshot beside a broken one of the same run."""
    explorable.with_name("network-snapshot-000001.pkl").write_bytes(explorable.read_bytes()[:-900])
    return explorable


def start_server(network: Path) -> tuple[subprocess.Popen[str], str]:
    """A process that serves the page, and the page's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "generate.py", "explore", f"--network={network}", f"--port={port}"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert server.stdout
    lines = [server.stdout.readline() for _ in range(2)]
    assert lines[1].startswith("Explore"), lines[1] + server.stdout.read()
    return server, f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def address(network: Path) -> Iterator[str]:
    server, url = start_server(network)
    yield url
    server.send_signal(signal.SIGINT)
    assert server.wait(WAIT_SEC) == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.getuid() == 0 else []
        )
        yield browser
        browser.close()


@contextlib.contextmanager
def visit(browser: Any, address: str, width: int = 1280) -> Iterator[Any]:
    """The page at an address, in a window of this width, once it shows an image."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(WAIT_SEC * 1000)
    page.goto(address)
    page.wait_for_selector("#image img")
    yield page
    page.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page of one visitor, which must log no error and load nothing from elsewhere."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "request", lambda request: request.url.startswith((address, "data:", "blob:")) or errors.append(request.url)
    )
    page.set_default_timeout(WAIT_SEC * 1000)
    page.goto(address)
    page.wait_for_selector("#image img")
    yield page
    page.close()
    assert errors == []


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + WAIT_SEC
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def settle(page: Any, change: Callable[[], object]) -> None:
    """Make a change and wait for the image that follows."""
    before = page.locator("#image img").get_attribute("src")
    change()
    wait_for(lambda: page.locator("#image img").get_attribute("src") != before)
    page.wait_for_timeout(300)


def shown(page: Any, name: str = "image", scale: int = 32) -> np.ndarray:
    """The pixels of an image of the page, before they were enlarged."""
    with urllib.request.urlopen(page.locator(f"#{name} img").get_attribute("src")) as file:
        return np.asarray(Image.open(io.BytesIO(file.read())))[::scale, ::scale]


def set_number(page: Any, label: str, value: object) -> None:
    """Type a number into a field or slider."""
    field = page.get_by_label(label, exact=label == "Second seed").locator("visible=true").first
    field.fill(str(value))
    field.press("Tab")


def files(page: Any, name: str, folder: Path) -> list[Path]:
    """Download what a list of files offers."""
    page.locator(f"#{name} a[download]").first.wait_for()
    paths = []
    for link in page.locator(f"#{name} a[download]").all():
        path = folder / Path(link.get_attribute("href")).name
        urllib.request.urlretrieve(link.get_attribute("href"), path)
        paths.append(path)
    return paths


def run_command(page: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Save, run the page's command beside the saved files, and return the image that it writes."""
    page.get_by_role("button", name="Save image and styles").click()
    saved = files(page, "files", folder)
    monkeypatch.chdir(folder)
    words = shlex.split(page.locator("#command textarea").input_value())
    assert words[:2] == ["python", "generate.py"]
    main.main(words[2:], standalone_mode=False)
    made = [path for path in (folder / "out").iterdir() if re.fullmatch(r"(seed|w)?\d+(-[1-9]\d*)?\.png", path.name)]
    image = np.asarray(Image.open(next(path for path in made if path.stem not in {"7-7", "9-9"})))
    assert np.array_equal(image, np.asarray(Image.open(next(path for path in saved if path.suffix == ".png"))))
    return image


def choose_seed_7(page: Any) -> None:
    settle(page, lambda: set_number(page, "Seed", 7))


def test_generate_tab(page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose_seed_7(page)
    page.get_by_label("Class").click()
    settle(page, lambda: page.get_by_role("option", name="blue").click())
    settle(page, lambda: set_number(page, "number input for Truncation", 0.6))
    settle(page, lambda: page.get_by_label("none").click())
    page.wait_for_url(lambda url: url.endswith("?seed=7&label=2&trunc=0.6&noise=none"))
    image = shown(page)
    assert np.array_equal(image, run_command(page, tmp_path, monkeypatch))
    page.reload()
    page.wait_for_selector("#image img")
    wait_for(lambda: np.array_equal(shown(page), image))
    page.get_by_text("Seeds 5, 6, 7, 8, 9").wait_for()
    settle(page, lambda: page.get_by_role("button", name="▶").click())
    page.wait_for_url("**seed=8**")
    page.get_by_text("Seeds 6, 7, 8, 9, 10").wait_for()
    page.locator("#strip img").click(position={"x": 10, "y": 40})
    page.wait_for_url("**seed=6**")


def test_mix_tab(page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose_seed_7(page)
    alone = shown(page)
    page.get_by_role("tab", name="Mix").click()
    settle(page, lambda: page.get_by_label("Mix with a second seed").check())
    settle(page, lambda: set_number(page, "Second seed", 9))
    image = shown(page)
    assert not np.array_equal(image, alone)
    assert np.array_equal(image, run_command(page, tmp_path, monkeypatch))


def test_move_tab(page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose_seed_7(page)
    alone = shown(page)
    page.get_by_role("tab", name="Move").click()
    settle(page, lambda: set_number(page, "number input for Direction 1, all", 2.5))
    image = shown(page)
    page.wait_for_url("**move=all.1%3A2.5**")
    assert np.array_equal(image, run_command(page, tmp_path, monkeypatch))
    settle(page, lambda: page.get_by_role("button", name="Reset", exact=True).click())
    assert np.array_equal(shown(page), alone)


def test_attend_tab(page: Any, network: Path, tmp_path: Path) -> None:
    choose_seed_7(page)
    page.get_by_role("tab", name="Attend").click()
    box = page.locator("#image img").bounding_box()
    page.locator("#image img").click(position={"x": box["width"] * 0.6, "y": box["height"] * 0.3})
    page.wait_for_selector("#attention img")
    main.main(["attention", f"--network={network}", "--seeds=7", "--points=4,9", f"--outdir={tmp_path}"],
              standalone_mode=False)  # fmt: skip
    assert np.array_equal(shown(page, "attention", 1), np.asarray(Image.open(tmp_path / "attention0007.png")))


def test_walk_tab(page: Any, network: Path, tmp_path: Path) -> None:
    page.get_by_role("tab", name="Walk").click()
    page.wait_for_timeout(300)  # a tab first shown may put its fields back to their defaults
    page.get_by_label("Seeds, such as").fill("1,3")
    set_number(page, "number input for Frames", 4)
    page.get_by_role("button", name="Play").click()
    (walk,) = files(page, "walkfile", tmp_path)
    made = tmp_path / "made.webp"
    main.main(["interpolate", f"--network={network}", "--seeds=1,3", "--frames=4", "--loop", "--scale=16", f"--out={made}"],
              standalone_mode=False)  # fmt: skip
    assert walk.read_bytes() == made.read_bytes()


def test_find_tab(page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target.png"
    Image.new("LA", (40, 30), (30, 60)).save(target)  # as it is: opaque on white, not the hidden grey
    choose_seed_7(page)
    alone = shown(page)
    page.get_by_role("tab", name="Mix").click()
    settle(page, lambda: page.get_by_label("Mix with a second seed").check())
    page.get_by_role("tab", name="Find").click()
    page.locator("#target input[type=file]").set_input_files(target)
    page.wait_for_selector("#target img")
    set_number(page, "number input for Steps", 20)
    settle(page, lambda: page.get_by_role("button", name="Find").click())
    assert "PSNR" in page.locator("#outcome").inner_text()
    assert "place of the seed" in page.locator("#note").inner_text()
    page.wait_for_url(lambda url: "mix=" not in url)  # the found styles alone are shown
    assert not np.array_equal(shown(page), alone)
    assert np.array_equal(shown(page), run_command(page, tmp_path, monkeypatch))
    settle(page, lambda: page.get_by_role("button", name="Back to the seed").click())
    assert np.array_equal(shown(page), alone)
    assert page.locator("#files a[download]").count() == 0  # what was saved of another image is gone


def test_a_target_that_is_no_image(page: Any, tmp_path: Path) -> None:
    target = tmp_path / "words.png"
    target.write_text("no pixels")
    page.get_by_role("tab", name="Find").click()
    page.locator("#target input[type=file]").set_input_files(target)
    page.locator("#target").get_by_label("Remove").or_(page.locator("#target img")).first.wait_for(state="attached")
    page.get_by_role("button", name="Find").click()
    page.get_by_text("words.png: ").first.wait_for()


@pytest.mark.parametrize("seed", ["-3", "3.5"])
def test_a_seed_that_is_none(page: Any, seed: str) -> None:
    image = shown(page)
    set_number(page, "Seed", seed)
    page.get_by_text("seed").filter(has_text=re.compile("must lie|whole number")).first.wait_for()
    assert np.array_equal(shown(page), image)


def test_a_broken_snapshot_is_told_in_the_page(page: Any) -> None:
    page.get_by_label("Snapshot").click()
    page.get_by_role("option", name="network-snapshot-000001.pkl").click()
    page.get_by_text("damaged").wait_for()
    assert "snapshot=" not in page.url  # the image shown is still that of the other


def test_a_missing_class_is_told_in_the_page(browser: Any, address: str) -> None:
    with visit(browser, f"{address}?label=purple") as page:
        page.get_by_text("no such class").first.wait_for()


def test_visitors_do_not_disturb_each_other(browser: Any, address: str) -> None:
    images = []
    with visit(browser, f"{address}?seed=11") as first, visit(browser, f"{address}?seed=12") as second:
        for page, seed in ((first, 11), (second, 12)):
            wait_for(lambda page=page, seed=seed: f"--seeds={seed}" in page.locator("#command textarea").input_value())
            images.append(shown(page))
    assert not np.array_equal(*images)


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(browser: Any, address: str, width: int) -> None:
    with visit(browser, address, width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_server_that_ends_leaves_a_message(browser: Any, network: Path) -> None:
    server, url = start_server(network)
    with visit(browser, url) as page:
        server.send_signal(signal.SIGHUP)  # the terminal is closed
        assert server.wait(WAIT_SEC) == 0
        set_number(page, "Seed", 3)
        page.get_by_text(re.compile("connection|lost|error", re.IGNORECASE)).first.wait_for()
