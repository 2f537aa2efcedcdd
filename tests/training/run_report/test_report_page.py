"""The report of made-up run folders, as text."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from run_folders import FACTS, make_run

from training.run.names import FACTS_FILE, LOG_FILE, OPTIONS_FILE, STATS_FILE
from training.run_report.page import digest, make_page, read_part
from training.run_report.run_folder import read_run

NASTY = "</script><script>alert(1)</script>\"'<img src=x onerror=alert(1)>&<!--"


class Elements(HTMLParser):
    """The elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "input", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert found is not None
    return json.loads(found[1])


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "00000-digits", num_snapshots=6)


def test_a_whole_run(run_dir: Path) -> None:
    page = make_page(run_dir)
    elements = Elements(page)
    assert not elements.open
    titles = [chart["title"] for chart in data_of(page)["charts"]]
    assert titles[:3] == ["fid50k_full", "is50k", "Losses"]
    assert {"Scores", "Augmentation", "Gradient penalties", "Path length", "Speed", "Memory"} <= set(titles)
    images = elements.named("img")
    assert [image["alt"] for image in images][-2:] == ["Images generated at 1000 kimg", "Real images"]
    assert ["hidden" in image for image in images] == [True] * 5 + [False, False]
    for text in ("00000-digits", "1,000 kimg", "1,234,567 parameters", "6,000", "CPU (Imaginary Processor)", "2.11.0",
                 "loss.r1_gamma", "--resume=latest", "Done", "Bad CRC-32"):  # fmt: skip
        assert text in page
    assert "augment.target" in page.partition("All settings")[2]
    assert "augment.target" not in page.partition("All settings")[0]


@pytest.mark.parametrize(("timestamp", "shown"), [("abc", False), (1e30, False), (None, False), (1_700_000_000, True)])
def test_a_time_that_is_none_is_left_out(tmp_path: Path, timestamp: object, shown: bool) -> None:
    run_dir = make_run(tmp_path / "00000-run", num_snapshots=1, num_rows=1, facts=FACTS | {"status": "running"})
    row = json.loads((run_dir / STATS_FILE).read_text(encoding="utf-8")) | {"timestamp": timestamp}
    (run_dir / STATS_FILE).write_text(json.dumps(row), encoding="utf-8")
    assert ("last update" in make_page(run_dir)) is shown


def test_fifty_snapshots_and_thousands_of_ticks_make_a_file_of_bounded_size(tmp_path: Path) -> None:
    page = make_page(make_run(tmp_path / "00000-run", num_snapshots=50, num_rows=5000))
    assert len(Elements(page).named("img")) == 51
    assert len(page.encode()) < 5_000_000


def test_nothing_can_be_loaded_and_only_our_script_runs(run_dir: Path) -> None:
    page = make_page(run_dir)
    elements = Elements(page)
    (policy,) = [str(meta["content"]) for meta in elements.named("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src '{digest(read_part('page.js'))}'" in policy
    assert f"style-src '{digest(read_part('page.css'))}'" in policy
    assert "unsafe" not in policy and "http" not in policy
    assert all("style" not in attributes for _, attributes in elements.found)
    urls = set(re.findall(r"https?://[^\s\"'<>]+", re.sub(r"base64,[^\"]+", "", page)))
    assert urls == {"http://www.w3.org/2000/svg"}  # the name of a kind of element


def test_text_from_files_is_only_text(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / f"00000-{NASTY.replace('/', '|')}", num_snapshots=1, num_rows=3)
    options = json.loads((run_dir / OPTIONS_FILE).read_text())
    options["data"]["path"] = options["preset"] = NASTY
    (run_dir / OPTIONS_FILE).write_text(json.dumps(options), encoding="utf-8")
    data = FACTS["data"] | {"class_names": [NASTY], "name": NASTY}  # type: ignore[operator]
    facts = FACTS | dict.fromkeys(("device", "command", "reason", "status"), NASTY)
    facts |= {"data": data, "versions": {NASTY: NASTY}}
    (run_dir / FACTS_FILE).write_text(json.dumps(facts), encoding="utf-8")
    (run_dir / LOG_FILE).write_text(f"Warning: {NASTY}\n", encoding="utf-8")
    (run_dir / "metric-<script>alert(1)<|script>.jsonl").write_text(
        json.dumps({"snapshot": "network-snapshot-000001.pkl", "value": 1.0}), encoding="utf-8"
    )
    page = make_page(run_dir)
    elements = Elements(page)
    assert "<script>alert(1)<|script>" in [chart["title"] for chart in data_of(page)["charts"]]
    assert len(elements.named("script")) == 2
    assert all(str(image["src"]).startswith("data:") for image in elements.named("img"))
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]


@pytest.mark.parametrize(
    "name", [STATS_FILE, OPTIONS_FILE, FACTS_FILE, LOG_FILE, "metric-fid50k_full.jsonl", "reals.png"]
)
@pytest.mark.parametrize("content", [None, b"\xff\x00\xfe", b"[1, 2]\n{\n", b'{"cur_nimg": "many"}\n{"cur_nimg": 4'])
def test_missing_and_damaged_files_are_left_out(tmp_path: Path, name: str, content: bytes | None) -> None:
    run_dir = make_run(tmp_path / "00000-run", num_snapshots=2, num_rows=5)
    if content is None:
        (run_dir / name).unlink()
    else:
        (run_dir / name).write_bytes(content)
    page = make_page(run_dir)
    assert "00000-run" in page
    assert not Elements(page).open
    assert data_of(make_page(tmp_path))["charts"] == []  # of a folder without a run


def test_time_is_that_of_all_restarts(tmp_path: Path) -> None:
    rows = [
        {"cur_nimg": nimg, "Timing/sec_per_kimg": {"mean": 2.0}, "Timing/maintenance_sec": {"mean": upkeep}}
        for nimg, upkeep in ((0, 5.0), (4000, 1.0), (6000, 2.0))
    ]
    (tmp_path / STATS_FILE).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert read_run(tmp_path).training_sec == pytest.approx(6 * 2 + 5 + 1 + 2)
