import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnnlib.images import codec as image
from dnnlib.images.codec import HEADER_BYTES, Layout, plain_layout, read_layout
from dnnlib.images.quick_header import quick_header

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8)


def saved(mode: str, file_format: str, **options: object) -> bytes:
    output = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(output, file_format, **options)
    return output.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"optimize": True, "comment": "holiday", "restart_marker_rows": 1}),
        ("JPEG", {"subsampling": "4:2:0", "quality": 100, "dpi": (300, 300)}),
    ],
)
def test_plain_files_need_no_pillow(
    monkeypatch: pytest.MonkeyPatch, mode: str, file_format: str, options: dict[str, object]
) -> None:
    data = saved(mode, file_format, **options)
    found = plain_layout(data[:HEADER_BYTES])
    assert found == Layout(24, 40, 1 if mode == "L" else 3)
    monkeypatch.setattr(image, "quick_header", lambda start: None)
    assert read_layout(io.BytesIO(data)) == found  # what Pillow says


def test_pillow_looks_at_all_others() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    others = [
        saved("CMYK", "JPEG"), saved("RGB", "JPEG", exif=exif), saved("RGBA", "PNG"), saved("P", "PNG"), saved("1", "PNG"),
        saved("RGB", "PNG", exif=exif), saved("RGB", "JPEG", comment="x" * HEADER_BYTES), saved("RGB", "WEBP"), b"", b"\xff\xd8",
    ]  # fmt: skip
    for data in others:
        assert quick_header(data[:HEADER_BYTES]) is None


def test_cut_or_damaged_starts_give_none_or_a_size() -> None:
    data = saved("RGB", "JPEG")
    assert all(quick_header(data[:count]) is None for count in range(600))
    rng = np.random.default_rng(1)
    for position, value in itertools.product(range(2, 700, 3), rng.integers(0, 256, 4)):
        changed = bytearray(data[:HEADER_BYTES])
        changed[position] = value
        found = quick_header(bytes(changed))
        assert found is None or (found[0] > 0 and found[1] > 0 and found[2] in (1, 3))


def test_huge_sizes_are_left_to_pillow(tmp_path: Path) -> None:
    data = bytearray(saved("RGB", "PNG"))
    data[16:20] = (2**30).to_bytes(4)
    assert plain_layout(bytes(data[:HEADER_BYTES])) is None
    assert quick_header(bytes(data[:HEADER_BYTES])) == (2**30, 40, 3)
