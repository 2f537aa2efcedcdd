import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from dnnlib.sources.image_sources import SourceOptions, open_source
from dnnlib.sources.source_images import ImageSource

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 28, 20), dtype=np.uint8)
LABELS = np.array([3, 0, 9, 1, 1], np.uint8)


def _idx(values: np.ndarray, code: int = 8, shape: tuple[int, ...] | None = None) -> bytes:
    shape = shape or values.shape
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape) + values.tobytes()


def _write(folder: Path, images: bytes, labels: bytes | None = None, start: str = "train", suffix: str = "") -> Path:
    pack = gzip.compress if suffix == ".gz" else bytes
    folder.mkdir(exist_ok=True)
    (folder / f"{start}-images-idx3-ubyte{suffix}").write_bytes(pack(images))
    if labels is not None:
        (folder / f"{start}-labels-idx1-ubyte{suffix}").write_bytes(pack(labels))
    return folder


def _open(source: Path, split: str | None = None, max_images: int | None = None) -> ImageSource:
    return open_source(str(source), SourceOptions(split=split, max_images=max_images))


def _read(source: ImageSource) -> tuple[np.ndarray, list[object]]:
    images = list(source.images())
    assert len(images) == source.count
    return np.stack([image.pixels(1, None) for image in images]), [image.label for image in images]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_images_and_labels_of_a_folder(tmp_path: Path, suffix: str) -> None:
    _write(tmp_path / "set", _idx(PIXELS), _idx(LABELS), suffix=suffix)
    _write(tmp_path / "set", _idx(PIXELS[:2, ::-1]), _idx(LABELS[:2]), "t10k", suffix)
    source = _open(tmp_path / "set")
    pixels, labels = _read(source)
    assert np.array_equal(pixels[..., 0], PIXELS)
    assert labels == [3, 0, 9, 1, 1]
    assert source.labelled
    assert str(source.layout) == "20x28 grey"
    pixels, labels = _read(_open(tmp_path / "set", "test"))
    assert np.array_equal(pixels[..., 0], PIXELS[:2, ::-1])
    assert labels == [3, 0]
    assert len(_read(_open(tmp_path / "set", "train", 2))[0]) == 2


def test_file_that_is_named_directly_and_has_no_labels(tmp_path: Path) -> None:
    _write(tmp_path / "set", _idx(PIXELS))
    source = _open(tmp_path / "set" / "train-source-idx3-ubyte")
    assert np.array_equal(_read(source)[0][..., 0], PIXELS)
    assert not source.labelled
    with pytest.raises(
        ValueError, match=r"--split=test chooses a file in a folder; .* give the folder of train-images"
    ):
        _open(tmp_path / "set" / "train-images-idx3-ubyte", "test")


def test_names_with_a_dot_before_idx(tmp_path: Path) -> None:
    (tmp_path / "train-images.idx3-ubyte").write_bytes(_idx(PIXELS))
    (tmp_path / "train-labels.idx1-ubyte").write_bytes(_idx(LABELS))
    assert _read(_open(tmp_path))[1] == LABELS.tolist()
    assert _read(_open(tmp_path / "train-images.idx3-ubyte"))[1] == LABELS.tolist()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (_idx(PIXELS, code=9), r"is no IDX file of bytes with 3 dimensions \(it begins with 00 00 09 03\)"),
        (_idx(LABELS), r"is no IDX file of bytes with 3 dimensions \(it begins with 00 00 08 01\)"),
        (b"", r"is no IDX file"),
        (b"\0\0\x08\x03\0\0", r"is no IDX file"),
        (_idx(PIXELS, shape=(2**32 - 1, 28, 28)), r"declares 3,367,254,359,296 bytes, but has"),
        (_idx(PIXELS, shape=(1, 2**31, 2**31)), r"declares images of a size that cannot be"),
        (_idx(PIXELS, shape=(0, 28, 20)), r"declares images of a size that cannot be"),
        (_idx(PIXELS, shape=(5, 0, 20)), r"declares images of a size that cannot be"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_headers_that_cannot_be_are_refused_before_anything_is_read(
    tmp_path: Path, images: bytes, message: str, suffix: str
) -> None:
    with pytest.raises(ValueError, match=rf"train-images-idx3-ubyte{suffix} {message}.*; download it again"):
        _open(_write(tmp_path / "set", images, suffix=suffix))


@pytest.mark.parametrize(
    ("images", "message"),
    [(_idx(PIXELS)[:-100], "declares 2,816 bytes, but has 2,716"), (_idx(PIXELS) + b"x", "but has 2,817")],
)
def test_file_of_another_size_than_declared_is_refused(tmp_path: Path, images: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _open(_write(tmp_path / "set", images))


def test_packed_files_are_counted_as_they_are_read(tmp_path: Path) -> None:
    _write(tmp_path / "set", _idx(PIXELS)[:-100], suffix=".gz")
    with pytest.raises(ValueError, match=r"idx3-ubyte.gz ends after 4 of its 5 items; download it again"):
        _read(_open(tmp_path / "set"))
    _write(tmp_path / "set", _idx(PIXELS) + b"x", suffix=".gz")
    with pytest.raises(ValueError, match=r"idx3-ubyte.gz has more than the 5 items it declares"):
        _read(_open(tmp_path / "set"))


def test_damaged_gzip_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "set", _idx(PIXELS), suffix=".gz") / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    path.write_bytes(content[:-50])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz is damaged"):
        _read(_open(tmp_path / "set"))
    path.write_bytes(content[:-8] + bytes(8))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz is damaged"):
        _read(_open(tmp_path / "set"))


def test_another_number_of_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte has 4 labels, but .*images-idx3-ubyte 5 images"):
        _open(_write(tmp_path / "set", _idx(PIXELS), _idx(LABELS[:4])))


def test_split_that_is_missing_or_unknown(tmp_path: Path) -> None:
    _write(tmp_path / "set", _idx(PIXELS))
    with pytest.raises(ValueError, match=r"set has no t10k-images-idx3-ubyte or t10k-images-idx3-ubyte.gz"):
        _open(tmp_path / "set", "test")
    with pytest.raises(ValueError, match=r"--split=extra is unknown; a folder of IDX files has train, test"):
        _open(tmp_path / "set", "extra")
