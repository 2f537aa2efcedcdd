"""Animations are what was given: frames, sizes, times; without ffmpeg the way to it is named."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnnlib.images.animation import check_animation, write_animation


def moving(shape: tuple[int, int, int], count: int = 7) -> list[np.ndarray]:
    """Frames that all differ: smooth colours that a palette can hold."""
    height, width, channels = shape
    y, x = np.mgrid[:height, :width]
    planes = [(x * 5 + y * 3 * (channel + 1) + 20 * np.ones_like(x)) % 256 for channel in range(channels)]
    return [np.roll(np.stack(planes, axis=2).astype(np.uint8), index, axis=0) for index in range(count)]


@pytest.mark.parametrize("shape", [(24, 16, 3), (15, 9, 1)])
@pytest.mark.parametrize(("suffix", "fps", "tolerance"), [("webp", 24, 0), ("gif", 24, 24)])
def test_frames_and_times_are_those_given(tmp_path, shape, suffix, fps, tolerance) -> None:
    """WebP holds every pixel; a GIF comes close, and grey is exact in both. A GIF counts hundredths of a second."""
    given = moving(shape)
    write_animation(tmp_path / f"a.{suffix}", iter(given), fps)
    with Image.open(tmp_path / f"a.{suffix}") as image:
        assert image.info["loop"] == 0 and image.n_frames == len(given)  # type: ignore[attr-defined]
        times = []
        for index, pixels in enumerate(given):
            image.seek(index)
            difference = abs(np.asarray(image.convert("RGB")).astype(int) - np.broadcast_to(pixels, (*shape[:2], 3)))
            assert difference.max() <= (0 if shape[2] == 1 else tolerance)
            times.append(image.info["duration"])
    assert abs(sum(times) - len(given) * 1000 / fps) <= (5 if suffix == "gif" else 0.5)  # no drift


@pytest.mark.parametrize(
    ("name", "fps", "width", "message"),
    [
        ("a.avi", 24, 64, r"a\.avi: the name of an animation ends in \.webp, \.gif, \.mp4"),
        ("a.gif", 60, 64, r"at most 50 images per second; --fps=60 needs \.webp or \.mp4"),
        ("a.webp", 24, 20_000, r"20000x64 px is too large"),
    ],
)
def test_what_cannot_be_written_is_refused_before(name: str, fps: int, width: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_animation(Path(name), fps, width, 64)


def test_without_ffmpeg_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"a\.mp4 needs the program ffmpeg.*install it.*or name a \.webp"):
        check_animation(Path("a.mp4"), 24, 64, 64)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg is not on the PATH")
@pytest.mark.parametrize("shape", [(64, 48, 3), (33, 47, 3), (33, 47, 1)])
def test_mp4_shows_the_frames_with_even_sides(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    given = moving(shape)
    write_animation(tmp_path / "a.mp4", iter(given), 24)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    command = ["ffmpeg", "-loglevel", "error", "-i", tmp_path / "a.mp4", "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    height, width = (side + side % 2 for side in shape[:2])
    frames = np.frombuffer(raw, np.uint8).reshape(-1, height, width)
    assert len(frames) == len(given)
    for frame, pixels in zip(frames, given, strict=True):
        expected = np.asarray(Image.fromarray(pixels.squeeze()).convert("L"))
        assert abs(frame[: shape[0], : shape[1]].astype(int) - expected).mean() < 8


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program named ffmpeg that keeps what it is given, or fails where a file named `fail` lies beside it."""
    if os.name == "nt":
        pytest.skip("a program on the PATH is a script only on POSIX")
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ffmpeg"
    program.write_text(
        f"#!{sys.executable}\nimport pathlib, sys\nhere = pathlib.Path(__file__).parent\n"
        "if (here / 'fail').exists():\n    sys.exit('Unknown encoder libx264')\n"
        "(here / 'arguments').write_text(' '.join(sys.argv[1:]))\n"
        "pathlib.Path(sys.argv[-1]).write_bytes(sys.stdin.buffer.read())\n",
        encoding="utf-8",
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


@pytest.mark.parametrize("channels", [1, 3])
def test_ffmpeg_gets_raw_frames_of_even_size(tmp_path: Path, recorder: Path, channels: int) -> None:
    given = moving((5, 7, channels), 3)
    write_animation(tmp_path / "a.mp4", iter(given), 12)
    arguments = (recorder / "arguments").read_text(encoding="utf-8")
    assert f"-pix_fmt {'gray' if channels == 1 else 'rgb24'} -s 8x6 -r 12 -i -" in arguments
    assert "libx264 -pix_fmt yuv420p" in arguments
    sent = np.frombuffer((tmp_path / "a.mp4").read_bytes(), np.uint8).reshape(3, 6, 8, channels)
    assert np.array_equal(sent[:, :5, :7], np.stack(given))
    assert np.array_equal(sent[:, 5], sent[:, 4])
    assert np.array_equal(sent[:, :, 7], sent[:, :, 6])


def test_failure_of_ffmpeg_is_passed_on_and_leaves_nothing(tmp_path: Path, recorder: Path) -> None:
    (recorder / "fail").touch()
    with pytest.raises(OSError, match=r"a\.mp4 cannot be written: ffmpeg failed \(Unknown encoder libx264\)"):
        write_animation(tmp_path / "a.mp4", iter(moving((64, 64, 3), 100)), 12)
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]
