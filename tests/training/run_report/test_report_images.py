import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.run_report import images
from training.run_report.images import BUDGET_BYTES, MAX_FRAMES, read_grids, thinned


def save(path: Path, shade: int, size: tuple[int, int] = (32, 32)) -> None:
    Image.new("RGB", size, (shade, 0, 0)).save(path)


def noise(path: Path, size: tuple[int, int]) -> None:
    """The worst that there is to compress."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, compress_level=0)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 64, 65, 66, 1000])
@pytest.mark.parametrize("limit", [2, 3, 64])
def test_thinning_is_even_and_keeps_both_ends(count: int, limit: int) -> None:
    files = [(float(kimg), Path(f"fakes{kimg:06d}.png")) for kimg in range(count)]
    kept = thinned(files, limit)
    assert len(kept) <= limit
    assert kept[:1] == files[:1] and kept[-1:] == files[-1:]
    distances = {b[0] - a[0] for a, b in pairwise(kept[:-1])}
    assert len(distances) <= 1
    assert count > limit or kept == files


def test_a_growing_run_goes_on_showing_what_it_showed() -> None:
    """All but the newest grid of a thinned run are among those of the shorter run before: nothing is encoded anew."""
    files = [(float(kimg), Path(str(kimg))) for kimg in range(1000)]
    for count in range(MAX_FRAMES * 2, 1000, 37):
        shorter, longer = (set(thinned(files[:n], MAX_FRAMES)) for n in (count, count + 1))
        assert longer - shorter <= {files[count], files[count - 1]}


def test_order_and_what_each_was_made_of(tmp_path: Path) -> None:
    for kimg, shade in ((200, 90), (4, 40)):
        save(tmp_path / f"fakes{kimg:06d}.png", shade)
    save(tmp_path / "fakes_init.png", 0)
    save(tmp_path / "reals.png", 200)
    (tmp_path / "fakes000300.png").write_bytes(b"\x89PNG cut short")
    (tmp_path / "fakes-of-mine.png").write_bytes(b"")
    found = read_grids(tmp_path)
    assert [image.kimg for image in found.fakes] == [0, 4, 200]
    reds = [Image.open(io.BytesIO(image.webp)).convert("RGB").getpixel((5, 5))[0] for image in found.fakes]  # type: ignore[index]
    assert reds == pytest.approx([0, 40, 90], abs=8)
    assert found.reals is not None and found.reals.kimg is None
    assert found.fakes[0].url.startswith("data:image/webp;base64,")


def test_the_grid_before_the_first_step_is_shown_once(tmp_path: Path) -> None:
    for name in ("fakes_init.png", "fakes000000.png"):
        save(tmp_path / name, 10)
    assert [image.kimg for image in read_grids(tmp_path).fakes] == [0]


def test_a_folder_without_images(tmp_path: Path) -> None:
    found = read_grids(tmp_path)
    assert (found.fakes, found.reals, found.num_fakes) == ([], None, 0)


def test_images_are_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kimg in range(5):
        save(tmp_path / f"fakes{kimg:06d}.png", kimg)
    read_grids(tmp_path)
    save(tmp_path / "fakes000005.png", 99)
    save(tmp_path / "fakes000002.png", 77)  # made again, after the run went back
    before = images._encoded.cache_info().misses
    read_grids(tmp_path)
    assert images._encoded.cache_info().misses == before + 2


@pytest.mark.parametrize(("count", "size"), [(200, (320, 256)), (3, (1536, 1024)), (12, (1280, 900))])
def test_all_images_together_are_bounded(tmp_path: Path, count: int, size: tuple[int, int]) -> None:
    noise(tmp_path / "fakes000000.png", size)
    for kimg in range(1, count):
        (tmp_path / f"fakes{kimg:06d}.png").hardlink_to(tmp_path / "fakes000000.png")
    found = read_grids(tmp_path)
    assert sum(len(image.webp) for image in found.fakes) <= BUDGET_BYTES
    assert (found.fakes[0].kimg, found.fakes[-1].kimg) == (0, count - 1)
    assert min(len(found.fakes), 3) == min(count, 3)
