"""The image grids of a run as data URLs, few and small enough for a file of bounded size."""

import base64
import functools
import io
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

MAX_FRAMES = 64
BUDGET_BYTES = 3_000_000  # of all images together, about; base64 makes them a third larger
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
        return "data:image/webp;base64," + base64.b64encode(self.webp).decode()


@dataclass(frozen=True)
class Grids:
    """Generated grids over time, and the real one."""

    fakes: list[Grid]
    reals: Grid | None
    num_fakes: int  # in the run folder


def read_grids(run_dir: Path) -> Grids:
    """Return the grids of a run, at most MAX_FRAMES, compressed to fit the budget; unreadable ones are left out."""
    files = fake_files(run_dir)
    chosen = thinned(files, MAX_FRAMES)
    for quality, max_px in QUALITIES:
        newest = next((grid for _, path in reversed(files) if (grid := encoded(path, quality, max_px))), None)
        if newest is None or (len(chosen) + 1) * len(newest.webp) <= BUDGET_BYTES:
            break
    found = [(kimg, encoded(path, quality, max_px)) for kimg, path in chosen]
    fakes = [Grid(kimg, grid.webp, grid.width, grid.height) for kimg, grid in found if grid]
    return Grids(fakes, encoded(run_dir / "reals.png", quality, max_px), len(files))


def fake_files(run_dir: Path) -> list[tuple[float, Path]]:
    """Return kimg and path of every grid of generated images, in order."""
    found = [(float(match[1]), path) for path in run_dir.glob("fakes*.png") if (match := _FAKES.fullmatch(path.name))]
    files, first = sorted(found), run_dir / "fakes_init.png"
    if first.is_file() and not (files and files[0][0] == 0):
        files.insert(0, (0.0, first))
    return files


def thinned(files: list[tuple[float, Path]], limit: int) -> list[tuple[float, Path]]:
    """Return at most `limit` of the files, evenly spaced, including the first and the last.

    The spacing is a power of two, so that a growing run shows mostly the same ones, which are encoded already.
    """
    step = 1
    while len(files) > 2 and -(-(len(files) - 1) // step) + 1 > max(limit, 2):
        step *= 2
    return files if step == 1 else [*files[:-1:step], files[-1]]


def encoded(path: Path, quality: int, max_px: int) -> Grid | None:
    """Return an image as WebP, no larger than `max_px`; None if it cannot be read."""
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
