"""The grids of images of a run as data URLs: few and small enough for a file of bounded size."""

import base64
import functools
import io
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

MAX_FRAMES = 64
BUDGET_BYTES = 3_000_000  # of all images together; base64 makes them a third larger
QUALITIES = ((90, 1280), (85, 1024), (75, 896), (65, 768), (55, 640), (45, 512))  # of WebP, and px of the longer side
_FAKES = re.compile(r"fakes(\d+)\.png")


@dataclass(frozen=True)
class Grid:
    """A grid as the page shows it."""

    kimg: float | None  # thousands of images seen; None = real images
    webp: bytes
    width: int  # px, of the WebP
    height: int

    @property
    def url(self) -> str:
        """The image as a data URL."""
        return "data:image/webp;base64," + base64.b64encode(self.webp).decode()


@dataclass(frozen=True)
class Grids:
    """Generated grids over time, and the real one."""

    fakes: list[Grid]
    reals: Grid | None
    num_fakes: int  # in the run folder


def read_grids(run_dir: Path) -> Grids:
    """Return the grids of a run, thinned out and compressed until they fit; unreadable ones are left out."""
    files = fake_files(run_dir)
    reals = run_dir / "reals.png"
    for quality, max_px in QUALITIES:
        newest = next((p for _, path in reversed(files) if (p := encoded(path, quality, max_px))), None)
        count = len(thinned(files, MAX_FRAMES)) + 1
        if newest is None or count * len(newest.webp) <= BUDGET_BYTES:
            break
    real = encoded(reals, quality, max_px)
    left = BUDGET_BYTES - (len(real.webp) if real else 0)
    limit = MAX_FRAMES
    while True:
        chosen = thinned(files, limit)
        found = [(kimg, encoded(path, quality, max_px)) for kimg, path in chosen]
        fakes = [Grid(kimg, p.webp, p.width, p.height) for kimg, p in found if p]
        if sum(len(image.webp) for image in fakes) <= left or limit <= 2:
            return Grids(fakes, real, len(files))
        limit //= 2


def fake_files(run_dir: Path) -> list[tuple[float, Path]]:
    """Return kimg and path of every grid of generated images, in order; the one before the first step is the first."""
    found = [(float(match[1]), path) for path in run_dir.glob("fakes*.png") if (match := _FAKES.fullmatch(path.name))]
    files, first = sorted(found), run_dir / "fakes_init.png"
    if first.is_file() and not (files and is_same(first, files[0][1])):
        files.insert(0, (0.0, first))
    return files


def is_same(path: Path, other: Path) -> bool:
    """Whether two files have the same content."""
    try:
        return path.stat().st_size == other.stat().st_size and path.read_bytes() == other.read_bytes()
    except OSError:
        return False


def thinned(files: list[tuple[float, Path]], limit: int) -> list[tuple[float, Path]]:
    """Return at most `limit` of the files, evenly, the first and the last among them.

    The distance is a power of two, so that a growing run goes on showing what it showed, and nothing is encoded anew.
    """
    step = 1
    while len(files) > 2 and -(-(len(files) - 1) // step) + 1 > max(limit, 2):
        step *= 2
    return files if step == 1 else [*files[:-1:step], files[-1]]


def encoded(path: Path, quality: int, max_px: int) -> Grid | None:
    """Return an image as WebP, no larger than `max_px`; None where it cannot be read. What was encoded is kept."""
    try:
        status = path.stat()
        return _encoded(path, (status.st_mtime_ns, status.st_size), quality, max_px)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


@functools.lru_cache(maxsize=4 * MAX_FRAMES)
def _encoded(path: Path, version: tuple[int, int], quality: int, max_px: int) -> Grid:
    with Image.open(path, formats=("PNG",)) as opened:
        image = opened.convert("RGB")
    image.thumbnail((max_px, max_px), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, format="WEBP", quality=quality)
    return Grid(None, file.getvalue(), image.width, image.height)
