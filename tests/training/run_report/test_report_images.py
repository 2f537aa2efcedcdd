import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.run_report.images import BUDGET_BYTES, MAX_FRAMES, read_grids, thinned


def save(path: Path, shade: int) -> None:
    Image.new("RGB", (32, 32), (shade, 0, 0)).save(path)


@pytest.mark.parametrize("count", [0, 1, 2, 64, 65, 66, 1000])
def test_thinning_is_even_and_keeps_both_ends(count: int) -> None:
    files = [(float(kimg), Path(f"fakes{kimg:06d}.png")) for kimg in range(count)]
    kept = thinned(files, MAX_FRAMES)
    assert len(kept) <= MAX_FRAMES and (count > MAX_FRAMES or kept == files)
    assert kept[:1] == files[:1] and kept[-1:] == files[-1:]
    assert len({b[0] - a[0] for a, b in pairwise(kept[:-1])}) <= 1


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
    save(tmp_path / "fakes000000.png", 0)
    assert [image.kimg for image in read_grids(tmp_path).fakes] == [0, 4, 200]


@pytest.mark.parametrize(("count", "size"), [(200, (320, 256)), (3, (1536, 1024)), (12, (1280, 900))])
def test_all_images_together_are_bounded(tmp_path: Path, count: int, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)  # the worst to compress
    Image.fromarray(pixels).save(tmp_path / "fakes000000.png", compress_level=0)
    for kimg in range(1, count):
        (tmp_path / f"fakes{kimg:06d}.png").hardlink_to(tmp_path / "fakes000000.png")
    found = read_grids(tmp_path)
    assert sum(len(image.webp) for image in found.fakes) <= BUDGET_BYTES
    assert (found.fakes[0].kimg, found.fakes[-1].kimg) == (0, count - 1)
