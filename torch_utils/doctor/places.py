"""Checks of folders: where they lie, what is free there, and how fast they are; and of WSL."""

import contextlib
import os
import re
import tempfile
import time
from pathlib import Path

from dnnlib.text import format_bytes
from torch_utils.doctor.verdict import OK, WARN, Verdict

LITTLE_FREE = 2 << 30
_CHUNK = bytes(range(256)) * (4 << 12)  # 4 MiB
_CHUNKS = 16
_MOST_SEC = 1.0  # of writing, and of reading
_SLOW = 20e6  # bytes a second


def wsl_version(kernel: str) -> int:
    """Return 1 or 2 for a kernel release of Microsoft's, such as 5.15.90.1-microsoft-standard-WSL2; else 0."""
    if "microsoft" not in kernel.lower():
        return 0
    return 2 if "wsl2" in kernel.lower() or "microsoft-standard" in kernel else 1


def check_wsl(kernel: str, has_gpu_device: bool, has_linux_driver: bool) -> list[Verdict]:
    """Check the version of WSL, its door to the GPU (/dev/dxg), and that no driver for Linux stands in the way."""
    version = wsl_version(kernel)
    if version == 0:
        return []
    if version == 1:
        remedy = "in PowerShell: wsl --set-version Ubuntu 2"
        return [Verdict(WARN, "WSL", f"version 1 (kernel {kernel}) knows no GPUs", remedy)]
    found = [Verdict(OK, "WSL", f"version 2, kernel {kernel}")]
    if not has_gpu_device:
        remedy = "in PowerShell: wsl --update, then wsl --shutdown; Windows 10 needs version 21H2 or newer"
        found.append(Verdict(WARN, "WSL", "there is no /dev/dxg, so no GPU", remedy))
    if has_linux_driver:
        remedy = "remove it: sudo apt purge 'nvidia-*' 'libnvidia-*' 'libcuda*'; Windows' driver is enough"
        found.append(Verdict(WARN, "WSL", "an NVIDIA driver for Linux is installed and hides Windows' own", remedy))
    return found


def check_place(folder: str, kernel: str, mounts: str) -> list[Verdict]:
    """Check that a folder lies on no disk of Windows seen through WSL, and not on Google Drive in Colab.

    Args:
        folder: Absolute path.
        kernel: The kernel's release.
        mounts: The text of /proc/mounts.
    """
    kind = filesystem(folder, mounts)
    if wsl_version(kernel) and (kind in ("9p", "drvfs", "v9fs") or re.match(r"/mnt/[a-z](/|$)", folder)):
        remedy = "keep program and data in the Linux home folder (cd ~)"
        return [Verdict(WARN, "place", f"{folder} is on a disk of Windows, many times slower from WSL", remedy)]
    if kind == "fuse.drive" or re.match(r"/content/drive(/|$)", folder):
        remedy = "data: copy the zip to /content before training; --outdir may stay, so that a new session goes on"
        return [Verdict(WARN, "place", f"{folder} is on Google Drive, slow with many or large files", remedy)]
    return []


def filesystem(folder: str, mounts: str) -> str:
    """Return the kind of file system a folder is on, such as ext4; "" = not known."""
    best, kind = "", ""
    for line in mounts.splitlines():
        words = line.split()
        if len(words) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words[1])  # a space is \040
        if Path(folder).is_relative_to(point) and len(point) >= len(best):
            best, kind = point, words[2]
    return kind


def check_disk(folder: str, free: int, write: float | None, read: float | None) -> list[Verdict]:
    """Check what is free in a folder and its speed in bytes a second; None = nothing can be written there."""
    space = f"{folder}: {format_bytes(free)} free"
    room = "make room: a run takes about 1 GB; --keep=2 bounds its snapshots"
    if free < LITTLE_FREE and write is None:
        return [Verdict(WARN, "disk", space, room)]
    if write is None or read is None:
        return [
            Verdict(WARN, "disk", f"{space}, but nothing can be written there", "fit for data only, not for --outdir")
        ]
    text = f"{space}, writes {write / 1e6:,.0f} MB/s, reads {read / 1e6:,.0f} MB/s"
    if free < LITTLE_FREE:
        return [Verdict(WARN, "disk", text, room)]
    if min(write, read) < _SLOW:
        return [Verdict(WARN, "disk", f"{text}, which is slow", "use a folder on a local disk for data and --outdir")]
    return [Verdict(OK, "disk", text)]


def measure(folder: Path) -> tuple[float | None, float | None]:
    """Return the bytes a second that a folder takes and gives, by a file of up to 64 MiB; None where it takes none."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            start, size = time.perf_counter(), 0
            while size < _CHUNKS * len(_CHUNK) and time.perf_counter() - start < _MOST_SEC:
                file.write(_CHUNK)
                file.flush()
                os.fsync(file.fileno())
                size += len(_CHUNK)
            write = size / max(time.perf_counter() - start, 1e-9)
            if hasattr(os, "posix_fadvise"):  # or the memory would be measured
                with contextlib.suppress(OSError):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            start, size = time.perf_counter(), 0
            while (part := file.read(len(_CHUNK))) and time.perf_counter() - start < _MOST_SEC:
                size += len(part)
            return write, size / max(time.perf_counter() - start, 1e-9)
    except OSError:
        return None, None


def existing_folder(path: str) -> Path:
    """Return the folder of a path, or the nearest one above it that exists."""
    folder = Path(os.path.abspath(os.path.expanduser(path)))
    return next(place for place in (folder, *folder.parents) if place.is_dir())
