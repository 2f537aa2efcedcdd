import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from image_sets import open_set

from dnnlib.images.codec import encode_png
from dnnlib.parallel import ordered_map
from dnnlib.sources.source_images import SourceImage

lmdb = pytest.importorskip("lmdb")

COUNT = 40


def _pixels(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def _key(index: int) -> bytes:
    return f"{index * 7919 % 65536:04x}{'0' * 36}".encode()  # as long as LSUN's, in no order of the index


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Return a folder as LSUN's, whose images are larger than a page."""
    folder = tmp_path / "church_train_lmdb"
    with lmdb.open(str(folder), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for index in range(COUNT):
            transaction.put(_key(index), encode_png(_pixels(index)))
    return folder


def _red_mean(image: SourceImage) -> float:
    return float(image.pixels(3, None)[:, :, 0].mean())


def test_images_come_in_the_order_of_their_keys(database: Path) -> None:
    source = open_set(database)
    order = sorted(range(COUNT), key=_key)
    images = list(source.images())
    assert source.count == COUNT
    assert not source.labelled
    for index, image in zip(order, images, strict=True):
        assert image.origin == f"{_key(index).decode()} in {database}"
        assert str(image.layout(None)) == "50x40 RGB"
        assert image.kind().file_format == "PNG"
        assert np.array_equal(image.pixels(3, None), _pixels(index))
    first = [image.origin for image in open_set(database, max_images=3).images()]
    assert first == [image.origin for image in images[:3]]


def test_images_are_small_to_send_and_read_by_several_processes(database: Path) -> None:
    images = list(open_set(database).images())
    assert len(pickle.dumps(images[0])) < 500
    here = [_red_mean(image) for image in images]
    assert list(ordered_map(_red_mean, images, workers=2, chunk_size=3)) == here


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_half_a_database_is_refused(database: Path, share: float) -> None:
    content = (database / "data.mdb").read_bytes()
    (database / "data.mdb").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"data.mdb is (cut off: its \d+ pages are more than [\d,]+ bytes|damaged)"):
        open_set(database)


@pytest.mark.parametrize(("place", "value"), [(10, 1), (10, 4), (12, 255), (16, 255)])
def test_damaged_index_is_an_error_and_not_the_end_of_the_process(database, place, value, capfd) -> None:
    content = bytearray((database / "data.mdb").read_bytes())
    page_bytes = int.from_bytes(content[40:44], "little")
    leaves = [start for start in range(2 * page_bytes, len(content), page_bytes) if content[start + 10] == 2]
    for start in leaves:
        content[start + place] = value
    (database / "data.mdb").write_bytes(content)
    with pytest.raises(ValueError, match=r"data.mdb (cannot be read|is damaged|is empty)"):
        open_set(database)
    assert capfd.readouterr().err == ""


def test_empty_database_is_refused(tmp_path: Path) -> None:
    lmdb.open(str(tmp_path / "set")).close()
    with pytest.raises(ValueError, match=r"data.mdb is empty; download and unpack it again"):
        open_set(tmp_path / "set")


def test_missing_package_is_named_with_the_command(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ValueError, match=r"needs one more package: pip install lmdb"):
        open_set(database)
