"""Animations: WebP and GIF through Pillow, MP4 through the program ffmpeg."""

import itertools
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dnnlib.files import atomic_write
from dnnlib.images.codec import to_pillow

SUFFIXES = (".webp", ".gif", ".mp4")
MAX_PX = {".webp": 16383, ".gif": 65535, ".mp4": 16384}  # what the formats can hold, or H.264 encoders take
GIF_MAX_FPS = 50  # browsers slow down what is faster
_UNIT_MS = {".webp": 1, ".gif": 10}  # in which the files count time
_PALETTE_FRAMES = 64  # that a GIF's colours are chosen from
_QUALITY = "17"  # of x264, 0-51: smaller is better; hardly told from the original


def check_animation(path: Path, fps: float, width: int, height: int) -> None:
    """Raise ValueError if an animation of this name, rate and size cannot be written."""
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise ValueError(f"{path}: the name of an animation ends in {', '.join(SUFFIXES)}")
    if kind == ".gif" and fps > GIF_MAX_FPS:
        raise ValueError(
            f"{path}: GIF shows at most {GIF_MAX_FPS} images per second; --fps={fps:g} needs .webp or .mp4"
        )
    if max(width, height) > MAX_PX[kind]:
        raise ValueError(
            f"{path}: {width}x{height} px is too large, {kind} has at most {MAX_PX[kind]}; enlarge less, or show fewer"
        )
    if kind == ".mp4":
        require_ffmpeg(path)


def write_animation(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write frames, uint8 [height, width, 1 or 3], in the format of the suffix; WebP and GIF loop.

    WebP is lossless. GIF has one palette for all frames, so that colours do not flicker.
    """
    kind = path.suffix.lower()
    if kind == ".mp4":
        write_mp4(path, frames, fps)
        return
    images = [to_pillow(frame) for frame in frames]
    if kind == ".gif" and images[0].mode == "RGB":
        images = with_one_palette(images)
    times = durations(len(images), fps, _UNIT_MS[kind])
    settings = {"lossless": True, "method": 4} if kind == ".webp" else {"optimize": False}
    with atomic_write(path) as file:
        images[0].save(
            file, kind[1:].upper(), save_all=True, append_images=images[1:], duration=times, loop=0, **settings
        )


def durations(count: int, fps: float, unit_ms: int) -> list[int]:
    """Return how long each frame is shown, ms: multiples of the unit that do not drift."""
    ends = [round(frame * 1000 / fps / unit_ms) * unit_ms for frame in range(count + 1)]
    return [end - start for start, end in itertools.pairwise(ends)]


def with_one_palette(images: Sequence[Image.Image]) -> list[Image.Image]:
    step = -(-len(images) // _PALETTE_FRAMES)
    sample = np.concatenate([np.asarray(image) for image in images[::step]])
    palette = Image.fromarray(sample).quantize(256, Image.Quantize.MEDIANCUT)
    return [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]  # dots would crawl


def enlarged(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Return an image [height, width, channels] with every pixel repeated `scale` times in both directions."""
    return pixels if scale == 1 else pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def require_ffmpeg(path: Path) -> str:
    """Return the path of ffmpeg; ValueError if it is not installed."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise ValueError(
            f"{path} needs the program ffmpeg, which is not on the PATH: install it (apt install ffmpeg, or conda install "
            f"ffmpeg), or name a .webp or .gif file"
        )
    return program


def write_mp4(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write frames, uint8 [height, width, 1 or 3], as H.264 (yuv420p, even sides); OSError if ffmpeg fails."""
    program = require_ffmpeg(path)
    with tempfile.TemporaryFile() as raw, atomic_write(path) as file:
        for frame in map(with_even_sides, frames):
            raw.write(frame.tobytes())
        raw.seek(0)
        height, width, channels = frame.shape
        command = [
            program, "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "gray" if channels == 1 else "rgb24",
            "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-", "-an", "-c:v", "libx264", "-pix_fmt", "yuv420p",
            "-crf", _QUALITY, "-movflags", "+faststart", "-f", "mp4", str(file.name),
        ]  # fmt: skip
        done = subprocess.run(command, stdin=raw, capture_output=True)
        if done.returncode != 0:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
            raise OSError(f"{path} cannot be written: ffmpeg failed ({lines[0]}); name a .webp file instead")


def with_even_sides(pixels: np.ndarray) -> np.ndarray:
    """Return an image whose last row and column are repeated if their number was odd."""
    return np.pad(pixels, [(0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)], mode="edge")
