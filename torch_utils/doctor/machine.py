"""Checks of the computer: memory, and the disks of folders."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from dnnlib.text import format_bytes
from torch_utils.doctor.verdict import OK, WARN, Verdict

_LITTLE_MEMORY = 3 << 30  # the demo takes about one, and the system wants some
_LITTLE_FREE = 2 << 30


def check_memory(meminfo: str, limits: Iterable[str], is_wsl: bool) -> list[Verdict]:
    """Check the memory that is there and free; nothing where the system does not tell.

    Args:
        meminfo: The text of /proc/meminfo.
        limits: The texts of the files that may hold a container's limit.
        is_wsl: Whether Linux runs inside Windows.
    """
    sizes = {name: int(kib) * 1024 for name, kib in re.findall(r"(?m)^(\w+): +(\d+) kB$", meminfo)}
    if not {"MemTotal", "MemAvailable"} <= sizes.keys():
        return []
    total = min([sizes["MemTotal"], *(int(text) for text in limits if text.strip().isdecimal())])
    available = min(sizes["MemAvailable"], total)
    text = f"{format_bytes(total)}, {format_bytes(available)} of them available"
    if available >= _LITTLE_MEMORY:
        return [Verdict(OK, "memory", text)]
    remedy = "close other programs"
    if is_wsl and total < 2 * _LITTLE_MEMORY:
        remedy = "give WSL more of the computer's: memory=... in .wslconfig, see docs/wsl.md"
    return [Verdict(WARN, "memory", f"{text}: training may be killed for lack of it", remedy)]


def check_disk(folder: str, free_bytes: int, is_wsl: bool) -> Verdict:
    """Check that a folder (an absolute path) has space and is on no disk of Windows seen through WSL."""
    text = f"{folder}: {format_bytes(free_bytes)} free"
    if free_bytes < _LITTLE_FREE:
        return Verdict(WARN, "disk", text, "make room: a run takes about 1 GB; --keep=2 bounds its snapshots")
    if is_wsl and re.match(r"/mnt/[a-z](/|$)", folder):
        text += ", on a disk of Windows, many times slower from WSL"
        return Verdict(WARN, "disk", text, "keep program and data in the Linux home folder (cd ~)")
    return Verdict(OK, "disk", text)


def existing_folder(path: str) -> Path:
    """Return the folder of a path without links, or the nearest one above it that exists."""
    folder = Path(os.path.expanduser(path)).resolve()
    return next(place for place in (folder, *folder.parents) if place.is_dir())
