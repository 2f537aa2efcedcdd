"""Names, and evaluate(): what is shared, what a value depends on, and the rows that are written."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from image_sets import FixedImages, GeneratedImages
from torch import Tensor

from metrics import registry
from metrics.registry import METRICS, evaluate, find, parse_names
from metrics.results import MetricResult, append_rows, read_rows
from metrics.weights.published import Source

NAME = "proxy_fd_randconv_v1"


@pytest.fixture(autouse=True)
def small_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two metrics that look at fewer images, so that the tests are quick."""
    metric = dataclasses.replace(METRICS[NAME], num_gen=300)
    monkeypatch.setitem(registry.METRICS, NAME, metric)
    monkeypatch.setitem(registry.METRICS, "fewer", dataclasses.replace(metric, num_gen=270))


def images(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand([count, 3, 4, 4], generator=generator)
    return (torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear") * 255).to(torch.uint8)


REAL = FixedImages(images(600, seed=0), content_hash="real")


def run(names: list[str], fake: GeneratedImages, folder: Path, batch_size: int = 64) -> list[MetricResult]:
    return evaluate(names, REAL, fake, batch_size=batch_size, seed=7, weights=Source(cache_folder=folder))


def test_names_are_parsed() -> None:
    assert parse_names(f" {NAME} ,proxy_fd_clf_v1,{NAME}") == [NAME, "proxy_fd_clf_v1"]
    with pytest.raises(ValueError, match=r"no metric fid, x in this version; did you mean fid50k\?"):
        parse_names(f"fid,{NAME},x")
    with pytest.raises(ValueError, match="no metric is named; choose from"):
        parse_names(" ,")
    light = ["fid5k_full", "kid5k_full", "is5k", "dc5k5_full"]
    assert parse_names(f"is10k,all-light,fid5k_full,{NAME}") == ["is10k", *light, NAME]


NUMBERS = {
    "fid50k_full": 50_000, "fid96_full": 96, "is10k": 10_000, "kid1k_full": 1000, "fid5k": 5000, "pr50k3_full": 50_000,
    "pr43_full": 4, "dc10k5_full": 10_000, "dc965_full": 96, "ppl2_wend": 50_000, "ppl2_96_wend": 96,
}  # fmt: skip


def test_names_have_any_number() -> None:
    assert parse_names(",".join(NUMBERS)) == list(NUMBERS)
    assert {name: registry.get(name).num_gen for name in NUMBERS} == NUMBERS
    for name in ("fid", "fid0_full", "fid05k_full", "fid5K_full", "is5k_full", "kid5k", "afid5k", "pr50k5_full"):
        assert find(name) is None
    with pytest.raises(ValueError, match="the largest number is 10000000"):
        parse_names("fid99999999999999999999k_full")
    for name, least in {"fid1_full": 2, "kid1_full": 2, "is9": 10, "ppl2_1_wend": 2, "pr33_full": 4}.items():
        with pytest.raises(ValueError, match=f"{name} stands for . generated images; the least number is {least}"):
            parse_names(name)


def test_metrics_share_a_pass_and_keep_their_values(tmp_path: Path) -> None:
    fake = GeneratedImages(images(300, seed=1))
    both = run([NAME, "fewer"], fake, tmp_path)
    assert fake.passes == 1
    assert [result.num_gen for result in both] == [300, 270]
    assert both[0].value != both[1].value
    for result in both:
        (alone,) = run([result.metric], fake, tmp_path)
        assert alone.value == pytest.approx(result.value, rel=1e-9)


def test_same_distribution_is_near_the_floor_and_noise_far(tmp_path: Path) -> None:
    (same,) = run([NAME], GeneratedImages(images(300, seed=1)), tmp_path)
    noise = torch.randint(0, 256, [300, 3, 16, 16], dtype=torch.uint8)
    (far,) = run([NAME], GeneratedImages(noise), tmp_path)
    assert same.floor is not None and 0 < same.value < 3 * same.floor
    assert far.value > 100 * same.value and far.floor == same.floor


def test_numbers_that_are_not_finite_are_null_in_the_rows(tmp_path: Path) -> None:
    (result,) = run([NAME], GeneratedImages(images(300, seed=1)), tmp_path / "cache")
    append_rows([dataclasses.replace(result, value=float("nan"), details={"std": float("inf")})], tmp_path)
    row = json.loads((tmp_path / f"metric-{NAME}.jsonl").read_text(), parse_constant=pytest.fail)
    assert row["value"] is None and row["details"] == {"std": None} and row["floor"] == result.floor


def test_a_row_after_a_torn_line_stands_in_a_line_of_its_own(tmp_path: Path) -> None:
    (result,) = run([NAME], GeneratedImages(images(300, seed=1)), tmp_path / "cache")
    for _ in range(2):
        append_rows([result], tmp_path)
    path = tmp_path / f"metric-{NAME}.jsonl"
    path.write_bytes(path.read_bytes()[:-30])  # as a full disk leaves it
    append_rows([dataclasses.replace(result, seed=8)], tmp_path)
    assert [row["seed"] for row in read_rows(tmp_path, NAME)] == [7, 8]


def test_a_run_that_fails_leaves_no_cache_entry(tmp_path: Path) -> None:
    class Broken(GeneratedImages):
        def parts(self, chosen: range, batch_size: int):  # type: ignore[no-untyped-def]
            raise ValueError("the generator broke")

    with pytest.raises(ValueError, match="the generator broke"):
        run([NAME], Broken(images(300, seed=1)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_retired_names_are_skipped_or_name_their_successor(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_names("proxy_fd_randconv_v1,proxy_fd_dct_v1") == ["proxy_fd_randconv_v1"]
    assert "proxy_fd_dct_v1 no longer exists and is skipped" in capsys.readouterr().out
    with pytest.raises(ValueError, match="proxy_fd_democlf_v1 no longer exists; use proxy_fd_clf_v1"):
        parse_names("proxy_fd_democlf_v1")
