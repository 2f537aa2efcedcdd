"""The report in Chromium, on a phone in light and on a desktop in dark colours."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_folders import FACTS, make_run, served

from training.run_report.renewal import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="the development package playwright is not installed")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")

WINDOWS = {"phone": (360, 740, "light"), "desktop": (1280, 900, "dark")}
LONG = "00012-" + "a_very_long_name_of_a_data_set" * 3 + "-cond-mirror-auto-batch32"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    facts = FACTS | {"status": "failed", "reason": "the disk is full, " + "a/long/path/" * 12 + " was not written"}
    run_dir = make_run(tmp_path_factory.mktemp("runs") / LONG, num_snapshots=5, num_rows=300, facts=facts)
    write_report(run_dir)
    return run_dir


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(params=WINDOWS)
def page(request: pytest.FixtureRequest, browser: Any, run_dir: Path) -> Iterator[Any]:
    """The report in a window, which must load nothing and log no error; on the phone from a server, through the index."""
    width, height, scheme = WINDOWS[request.param]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    errors: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    if request.param == "desktop":
        page.goto((run_dir / "report.html").as_uri())
        yield page
    else:
        with served(run_dir.parent) as server:
            page.goto(server.url)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.get_by_role("link", name=LONG).click()
            yield page
    page.close()
    assert errors == []
    assert len([url for url in requests if not url.startswith("data:")]) == (1 if request.param == "desktop" else 2)


def test_report(page: Any) -> None:
    page.get_by_role("heading", name="Curves").wait_for()
    page.evaluate("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.locator("h1").inner_text() == LONG
    assert page.get_by_text("the disk is full").is_visible()

    images = page.locator(".grids img:visible")
    assert images.count() == 2
    assert all(images.nth(n).evaluate("image => image.complete && image.naturalWidth === 320") for n in range(2))
    shown, last = page.locator("#shown"), page.locator(".grids").screenshot()
    page.get_by_role("slider", name="Generated at").focus()
    page.keyboard.press("ArrowLeft")
    assert shown.inner_text() == "750 kimg (image 4 of 5)"
    page.keyboard.press("Home")
    assert page.locator(".grids").screenshot() != last
    page.get_by_role("button", name="Later image").click()
    assert shown.inner_text() == "250 kimg (image 2 of 5)"
    page.get_by_role("button", name="Play").click()
    page.locator("#play", has_text="Play").wait_for()  # again, at the end
    assert shown.inner_text() == "1000 kimg (image 5 of 5)"

    drawings = page.locator(".charts svg")
    assert drawings.count() == page.locator(".charts figure").count() >= 10
    for drawing in drawings.all():
        lengths = drawing.locator(".curve").evaluate_all("paths => paths.map((path) => path.getTotalLength())")
        assert lengths and min(lengths) > 50
        assert len(drawing.locator("text").all()) >= 5
    drawn = page.locator(".charts").inner_html()
    assert "NaN" not in drawn and "undefined" not in drawn
    losses = page.locator("figure", has_text="Losses of the").locator(".curve").first
    assert losses.get_attribute("d").count("M") == 2  # on both sides of the gap

    fid = page.locator("figure", has_text="fid50k_full")
    drawing, legend = fid.locator("svg"), fid.locator(".legend")
    assert fid.locator(".best").count() == fid.locator(".floor").count() == 1
    drawing.scroll_into_view_if_needed()
    box = drawing.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.3, box["y"] + 60)
    assert "at 250 kimg" in legend.inner_text() and shown.inner_text() == "250 kimg (image 2 of 5)"
    page.mouse.move(5, 5)
    drawing.focus()
    page.keyboard.press("ArrowLeft")
    assert "at 750 kimg" in legend.inner_text()
