"""Names what a file is that was given as a network or a data set by mistake."""

import re
import zipfile
from pathlib import Path

from dnnlib.images.codec import SUFFIXES

_TEXT = re.compile(rb"[\t\r\n -~]+")
_STARTS = {  # the first bytes of a file, and what it is
    b"version https://git-lfs": "a Git-LFS pointer, not the file itself; run `git lfs pull` where it was cloned, or download it",
    b"\x89PNG": "an image (PNG)",
    b"\xff\xd8\xff": "an image (JPEG)",
    b"GIF8": "an image (GIF)",
    b"BM": "an image (BMP)",
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"%PDF": "a PDF document",
    b"Rar!": "an archive (rar); unpack it first",
    b"\x1f\x8b": "compressed (gzip); unpack it first",
    b"\xfd7zXZ": "compressed (xz); unpack it first",
    b"7z\xbc\xaf": "an archive (7z); unpack it first",
}
EXAMPLE = "a network is a file such as network-snapshot-000040.pkl"
_DATA_SET = "a data set, which --data takes"
_WEB_PAGE = "a web page, not the file itself; download it from the address of its download button"


def foreign_kind(path: Path) -> str | None:
    """What a file is if it is certainly no network, with a remedy; None if it may be one. Raises OSError."""
    with open(path, "rb") as file:
        start = file.read(512)
    if not start:
        return "empty; copy or download it again"
    for beginning, kind in _STARTS.items():
        is_certain = len(beginning) > 2 or path.suffix != ".safetensors"  # which begins with any number
        if start.startswith(beginning) and is_certain:
            return kind
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if re.match(rb"<[!?a-z]", text):
        return _WEB_PAGE
    if start.startswith(b"PK"):
        return _kind_of_zip(path)
    if start[257:262] == b"ustar":
        return "an archive (tar); unpack it first"
    if text and _TEXT.fullmatch(text):
        return f"a text, which begins {start.split()[0][:40].decode()!r}"
    return None


def foreign_folder(path: Path) -> str | None:
    """The same of a folder."""
    if (path / "dataset.json").exists() or any(child.suffix.lower() in SUFFIXES for child in path.iterdir()):
        return _DATA_SET
    return None


def _kind_of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "cut short or damaged; copy or download it again"
    if any(name.split("/")[-1] == "dataset.json" or name.lower().endswith(SUFFIXES) for name in names):
        return _DATA_SET
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript program, which is not run"
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz); styles are given as --w"
    return None
