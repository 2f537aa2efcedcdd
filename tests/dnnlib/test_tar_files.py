import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dnnlib.sources.tar_files import TarFiles, is_tar

CONTENT = bytes(range(256)) * 200


def _tar(size: int | None = None, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return a tar with a file in a folder, which may declare another size or be of another kind."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("set/data.bin")
        info.size, info.type = len(CONTENT), kind
        archive.addfile(info, io.BytesIO(CONTENT))
    if size is None:
        return output.getvalue()
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT) + output.getvalue()[512:]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_files_are_read_however_the_tar_is_compressed(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "set.tar"
    path.write_bytes(pack(_tar()))
    files = TarFiles(path)
    assert is_tar(path)
    assert files.exists("data.bin")
    assert not files.exists("set")
    assert files.sizes(["data.bin"]) == [len(CONTENT)]
    assert files.read("data.bin", len(CONTENT)) == CONTENT
    with files.open("data.bin") as first, files.open("data.bin") as second:  # each has its own place
        assert first.read(1000) == second.read(1000) == CONTENT[:1000]


def test_larger_files_than_allowed_are_refused_by_what_they_declare(tmp_path: Path) -> None:
    (tmp_path / "set.tar").write_bytes(_tar())
    with pytest.raises(ValueError, match=r"has 50.0 KiB, more than the 1.0 KiB that it may have"):
        TarFiles(tmp_path / "set.tar").read("data.bin", 1024)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_endless_names_are_refused_before_memory_is_taken(
    tmp_path: Path, pack: Callable[[bytes], bytes], kind: bytes
) -> None:
    (tmp_path / "set.tar").write_bytes(pack(_tar(8 * 2**30, kind)))
    with pytest.raises(ValueError, match=r"set.tar is damaged \(.*declares 8,589,934,592 bytes"):
        TarFiles(tmp_path / "set.tar")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_members_that_declare_more_than_there_is_are_refused(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "set.tar").write_bytes(pack(_tar(2**33)))
    with pytest.raises(ValueError, match=r"set.tar is damaged \(.*\); download it again"):
        TarFiles(tmp_path / "set.tar")


def test_half_a_download_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.tar.gz").write_bytes(gzip.compress(_tar())[:300])
    with pytest.raises(ValueError, match=r"set.tar.gz is damaged"):
        TarFiles(tmp_path / "set.tar.gz")


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", gzip.compress(b"hello", mtime=0), b"\x1f\x8bhello", b"PK\3\4" + bytes(600)],
    ids=["empty", "text", "gzip of text", "damaged gzip", "zip"],
)
def test_other_files_are_no_tar(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert not is_tar(tmp_path / "file")
