"""MP4 files through the program ffmpeg, where it is installed."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dnnlib.files import temporary_name

_QUALITY = "17"  # of x264, 0-51: smaller is better; hardly told from the original


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
    program, temporary = require_ffmpeg(path), temporary_name(path)
    with tempfile.TemporaryFile() as raw:
        for frame in map(with_even_sides, frames):
            raw.write(frame.tobytes())
        raw.seek(0)
        height, width, channels = frame.shape
        command = [
            program, "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "gray" if channels == 1 else "rgb24",
            "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-", "-an", "-c:v", "libx264", "-pix_fmt", "yuv420p",
            "-crf", _QUALITY, "-movflags", "+faststart", "-f", "mp4", str(temporary),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, stdin=raw, capture_output=True)
            if done.returncode != 0:
                lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
                raise OSError(f"{path} cannot be written: ffmpeg failed ({lines[0]}); name a .webp file instead")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def with_even_sides(pixels: np.ndarray) -> np.ndarray:
    """Return an image whose last row and column are repeated if their number was odd."""
    return np.pad(pixels, [(0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)], mode="edge")
