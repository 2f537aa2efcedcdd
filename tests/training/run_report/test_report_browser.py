"""The report as people see it: in a browser, on a phone and on a desktop, light and dark."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_folders import FACTS, make_run

from training.run_report.renewal import write_report
from training.run_report.server import ReportServer

sync_api = pytest.importorskip("playwright.sync_api", reason="the development package playwright is not installed")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")

SIZES = {"phone": (360, 740), "desktop": (1280, 900)}
LONG = "00012-" + "a_very_long_name_of_a_data_set" * 3 + "-cond-mirror-auto-batch32"

# Text that sticks out of the window or of its drawing, or that an element with hidden overflow cuts off.
CLIPPED = """() => {
  const found = [], range = document.createRange();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode, parent = node.parentElement;
    if (!node.textContent.trim() || ["SCRIPT", "NOSCRIPT"].includes(parent.tagName) || !parent.checkVisibility()) continue;
    range.selectNodeContents(node);
    const outer = parent.closest("svg, .card, .tiles div") ?? document.body;
    const box = range.getBoundingClientRect(), frame = outer.getBoundingClientRect();
    const isWide = box.left < frame.left - 1 || box.right > frame.right + 1;
    const isOut = isWide || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
    if (isOut || box.right > document.documentElement.clientWidth) found.push(node.textContent);
  }
  return found;
}"""

# Texts whose contrast with what is behind them is below the 4.5 of WCAG 2.1, level AA.
FAINT = """() => {
  const light = (colour) => {
    const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    const colour = node ? getComputedStyle(node).backgroundColor : "rgb(255, 255, 255)";
    return colour === "rgba(0, 0, 0, 0)" ? behind(node.parentElement) : colour;
  };
  return [...document.querySelectorAll("body *")].filter((node) => {
    const hasText = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!hasText || ["SCRIPT", "NOSCRIPT"].includes(node.tagName) || !node.checkVisibility()) return false;
    const style = getComputedStyle(node), isDrawn = node instanceof SVGElement;
    const [low, high] = [light(isDrawn ? style.fill : style.color), light(behind(node))].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05) < 4.5;
  }).map((node) => node.outerHTML);
}"""


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    facts = FACTS | {"status": "failed", "reason": "the disk is full, " + "a/long/path/" * 12 + " was not written"}
    metrics = ("fid50k_full", "is50k", "proxy_fd_randconv_v1")
    run_dir = make_run(
        tmp_path_factory.mktemp("runs") / LONG, num_snapshots=5, num_rows=300, facts=facts, metrics=metrics
    )
    write_report(run_dir)
    return run_dir


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")], ids="-".join)
def page(request: pytest.FixtureRequest, browser: Any, run_dir: Path, tmp_path: Path) -> Iterator[Any]:
    """The report in a window of one size and scheme, which must load nothing and complain of nothing."""
    size, scheme = request.param
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        has_touch=size == "phone",
        reduced_motion="reduce",
    )
    page, complaints, requests = context.new_page(), [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    address = (run_dir / "report.html").as_uri()
    page.goto(address)
    yield page
    page.screenshot(path=tmp_path / f"{size}-{scheme}.png", full_page=True)
    context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [address]


def shown(page: Any) -> str:
    """The description of the generated grid on display."""
    (image,) = page.locator(".grids img[data-kimg]:visible").all()
    return image.get_attribute("alt")


def test_everything_is_there_and_fits(page: Any) -> None:
    widths = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert widths[0] <= widths[1]
    page.evaluate("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= widths[1]
    assert page.evaluate(CLIPPED) == []
    assert page.evaluate(FAINT) == []
    assert page.locator("h1").inner_text() == LONG
    assert page.get_by_text("the disk is full").is_visible()
    images = page.locator(".grids img:visible")
    assert images.count() == 2
    assert all(images.nth(n).evaluate("image => image.complete && image.naturalWidth === 320") for n in range(2))


def test_every_chart_is_drawn_and_labelled(page: Any) -> None:
    drawings = page.locator(".charts svg")
    assert drawings.count() == page.locator(".charts figure").count() >= 10
    for drawing in drawings.all():
        lengths = drawing.locator(".curve").evaluate_all("paths => paths.map((path) => path.getTotalLength())")
        assert lengths and min(lengths) > 50
        assert len(drawing.locator("text").all()) >= 5
        assert "over thousands of images" in drawing.get_attribute("aria-label")
    assert "NaN" not in page.content() and "undefined" not in page.locator("main").inner_text()
    losses = page.locator("figure", has_text="Losses of the").locator(".curve").first
    assert losses.get_attribute("d").count("M") == 2  # on both sides of the gap
    fid = page.locator("figure", has_text="fid50k_full")
    assert fid.locator(".best").count() == fid.locator(".floor").count() == 1


def test_the_slider_moves_through_the_images(page: Any) -> None:
    slider = page.get_by_role("slider", name="Generated at")
    assert shown(page) == "Images generated at 1000 kimg"
    last = page.locator(".grids").screenshot()
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert shown(page) == "Images generated at 750 kimg"
    assert slider.get_attribute("aria-valuetext") == "750 kimg"
    assert page.locator("#shown").inner_text() == "750 kimg (image 4 of 5)"
    page.keyboard.press("Home")
    assert shown(page) == "Images generated at 0 kimg"
    assert page.locator(".grids").screenshot() != last
    page.get_by_role("button", name="Later image").click()
    assert shown(page) == "Images generated at 250 kimg"
    slider.fill("3")
    assert shown(page) == "Images generated at 750 kimg"
    marks = page.locator(".shown").evaluate_all("lines => lines.map((line) => line.getAttribute('visibility'))")
    assert set(marks) == {"visible"}


def test_images_play_and_pause(page: Any) -> None:
    page.get_by_role("button", name="Play").click()
    assert shown(page) == "Images generated at 0 kimg"
    page.locator("#play", has_text="Play").wait_for()  # again, at the end
    assert shown(page) == "Images generated at 1000 kimg"
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Pause").click()
    assert shown(page) != "Images generated at 1000 kimg"


def test_charts_tell_values_to_pointer_and_keys(page: Any) -> None:
    figure = page.locator("figure", has_text="fid50k_full")
    drawing, legend = figure.locator("svg"), figure.locator(".legend")
    before = legend.inner_text()
    assert "at 1000 kimg" in before and "best" in before
    drawing.scroll_into_view_if_needed()
    box = drawing.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 60)
    assert "at 250 kimg" in legend.inner_text()
    page.mouse.click(box["x"] + box["width"] * 0.3, box["y"] + 60)
    assert shown(page) == "Images generated at 250 kimg"
    page.mouse.move(5, 5)
    drawing.focus()
    page.keyboard.press("ArrowLeft")
    assert "at 750 kimg" in legend.inner_text()
    page.keyboard.press("Home")
    assert "at 250 kimg" in legend.inner_text()


def test_charts_follow_the_width_of_the_window(page: Any) -> None:
    page.set_viewport_size({"width": 700, "height": 700})
    page.wait_for_function(
        "[...document.querySelectorAll('.charts svg')].every((svg) => svg.viewBox.baseVal.width === svg.clientWidth)"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
    assert page.evaluate(CLIPPED) == []


@pytest.fixture
def server(run_dir: Path) -> Iterator[ReportServer]:
    with ReportServer(run_dir.parent, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("size", SIZES)
def test_index_and_report_over_http(browser: Any, server: ReportServer, tmp_path: Path, size: str) -> None:
    width, height = SIZES[size]
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(10_000)
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(server.url)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CLIPPED) == []
    page.screenshot(path=tmp_path / f"index-{size}.png")
    page.get_by_role("link", name=LONG).click()
    page.get_by_role("heading", name="Curves").wait_for()
    assert shown(page) == "Images generated at 1000 kimg"
    page.get_by_role("link", name="All runs").click()
    page.get_by_role("heading", name="Runs", exact=True).wait_for()
    page.close()
    assert complaints == []
