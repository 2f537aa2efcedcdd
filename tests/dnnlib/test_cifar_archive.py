import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from dnnlib.sources.cifar_archive import read_cifar10
from dnnlib.sources.tar_files import TarFiles

RNG = np.random.default_rng(0)
PIXELS = [RNG.integers(0, 256, (2, 3072), dtype=np.uint8) for _ in range(5)]


def _python2_batch(data: np.ndarray, labels: list[int]) -> bytes:
    """Pickle a batch opcode by opcode as Python 2 did, with its byte strings; Python 3 cannot write that."""
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
    array += b"K" + bytes([len(data)]) + b"M\x00\x0c\x86"
    array += b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array += b"\x89T" + data.nbytes.to_bytes(4, "little") + data.tobytes() + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(U\x04data" + array + b"U\x06labels" + numbers + b"u."


def _write_tar(path: Path, replaced: dict[str, bytes]) -> Path:
    meta = pickle.dumps({b"label_names": [b"airplane", b"automobile"]}, protocol=2)
    members = {f"data_batch_{k + 1}": _python2_batch(PIXELS[k], [k % 2, 1]) for k in range(5)}
    members = {"batches.meta": meta, **members, **replaced}
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _read(path: Path) -> tuple[np.ndarray, list[int], list[str]]:
    return read_cifar10(TarFiles(path))


def test_published_format(tmp_path: Path) -> None:
    images, labels, class_names = _read(_write_tar(tmp_path / "c.tar.gz", {}))
    assert class_names == ["airplane", "automobile"]
    assert labels == [0, 1, 1, 1, 0, 1, 1, 1, 0, 1]
    assert images.shape == (10, 32, 32, 3)
    assert images[2, 5, 7, 1] == PIXELS[1][0, 1024 + 5 * 32 + 7]  # stored as planes of rows


def test_pickles_written_by_python_3(tmp_path: Path) -> None:
    batch = pickle.dumps({b"data": PIXELS[0], b"labels": [0, 1]}, protocol=2)
    images, _, _ = _read(_write_tar(tmp_path / "c.tar.gz", {"data_batch_1": batch}))
    assert np.array_equal(images[0].transpose(2, 0, 1).ravel(), PIXELS[0][0])


class _Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_code_is_refused_by_name(tmp_path: Path) -> None:
    attack = pickle.dumps({b"data": _Attack(tmp_path / "done"), b"labels": []}, protocol=2)
    path = _write_tar(tmp_path / "c.tar.gz", {"data_batch_3": attack})
    with pytest.raises(ValueError, match=r"data_batch_3 in .*c.tar.gz cannot be read: it asks for (posix|nt)\.mkdir"):
        _read(path)
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"junk", "data_batch_2 in .* cannot be read"),
        (pickle.dumps({b"data": 1, b"labels": []}), "data_batch_2 .*does not hold uint8 images of 3072"),
        (_python2_batch(PIXELS[0], [1]), "one label for each of its 2"),
        (_python2_batch(PIXELS[0], [1, 2]), r"no class index 0..1"),
    ],
)
def test_damaged_batches_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _read(_write_tar(tmp_path / "c.tar.gz", {"data_batch_2": content}))


def test_other_tar_files_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "other.tar", "w"):
        pass
    with pytest.raises(
        ValueError, match=r"has no data_batch_1.*tar files that can be packed are cifar-10-python.tar.gz and stl10"
    ):
        _read(tmp_path / "other.tar")


def test_half_a_download_is_refused(tmp_path: Path) -> None:
    path = _write_tar(tmp_path / "c.tar.gz", {})
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ValueError, match="damaged"):
        _read(path)


def test_member_far_larger_than_a_batch_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = _write_tar(tmp_path / "c.tar.gz", {"data_batch_4": bytes(2**26 + 1)})
    with pytest.raises(ValueError, match=r"data_batch_4 in .*c.tar.gz has 64.0 MiB, more than the 64.0 MiB"):
        _read(path)
