import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from image_sets import open_set

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


def _read(source: ImageSource) -> tuple[np.ndarray, list[object]]:
    images = list(source.images())
    assert len(images) == source.count
    return np.stack([image.pixels(1, None) for image in images])[..., 0], [image.label for image in images]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_images_and_labels_of_a_folder(tmp_path: Path, suffix: str) -> None:
    _write(tmp_path / "set", _idx(PIXELS), _idx(LABELS), suffix=suffix)
    _write(tmp_path / "set", _idx(PIXELS[:2, ::-1]), _idx(LABELS[:2]), "t10k", suffix)
    source = open_set(tmp_path / "set")
    pixels, labels = _read(source)
    assert np.array_equal(pixels, PIXELS)
    assert labels == LABELS.tolist() and source.labelled
    assert str(source.layout) == "20x28 grey"
    pixels, labels = _read(open_set(tmp_path / "set", "test"))
    assert np.array_equal(pixels, PIXELS[:2, ::-1])
    assert labels == [3, 0]
    assert len(_read(open_set(tmp_path / "set", "train", 2))[0]) == 2


def test_file_without_labels_and_names_with_a_dot(tmp_path: Path) -> None:
    _write(tmp_path / "set", _idx(PIXELS))
    source = open_set(tmp_path / "set" / "train-images-idx3-ubyte")
    assert np.array_equal(_read(source)[0], PIXELS)
    assert not source.labelled
    with pytest.raises(ValueError, match=r"set has no t10k-images-idx3-ubyte or t10k-images-idx3-ubyte.gz"):
        open_set(tmp_path / "set", "test")
    with pytest.raises(ValueError, match=r"--split=extra is unknown; a folder of IDX files has train, test"):
        open_set(tmp_path / "set", "extra")
    with pytest.raises(ValueError, match=r"--split=test selects a file in a folder"):
        open_set(tmp_path / "set" / "train-images-idx3-ubyte", "test")
    (tmp_path / "train-images.idx3-ubyte").write_bytes(_idx(PIXELS))
    (tmp_path / "train-labels.idx1-ubyte").write_bytes(_idx(LABELS))
    assert _read(open_set(tmp_path))[1] == LABELS.tolist()
    assert _read(open_set(tmp_path / "train-images.idx3-ubyte"))[1] == LABELS.tolist()


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    "images",
    [
        _idx(PIXELS, code=9),
        _idx(LABELS),
        b"",
        _idx(PIXELS, shape=(2**32 - 1, 28, 28)),
        _idx(PIXELS, shape=(0, 28, 20)),
        _idx(PIXELS)[:-100],
        _idx(PIXELS) + b"x",
    ],
    ids=["type", "labels", "empty", "huge", "no images", "cut off", "too long"],
)
def test_damaged_files_are_named(tmp_path: Path, images: bytes, suffix: str) -> None:
    with pytest.raises(ValueError, match=rf"train-images-idx3-ubyte{suffix} is damaged, or no IDX"):
        open_set(_write(tmp_path / "set", images, suffix=suffix))


def test_damaged_gzip_and_wrong_labels_are_named(tmp_path: Path) -> None:
    folder = _write(tmp_path / "set", _idx(PIXELS), suffix=".gz")
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"idx3-ubyte.gz is damaged"):
        open_set(folder)
    with pytest.raises(ValueError, match=r"idx1-ubyte.gz has 4 labels, but .*train-images-idx3-ubyte.gz 5 images"):
        open_set(_write(folder, _idx(PIXELS), _idx(LABELS[:4]), suffix=".gz"))
