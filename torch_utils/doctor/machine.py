"""Checks of memory and disks."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from dnnlib.text import format_bytes
from torch_utils.doctor.verdict import OK, WARN, Verdict

_LITTLE_MEMORY = 3 << 30  # the demo takes about 1 GiB
_LITTLE_DISK = 2 << 30


def check_memory(meminfo: str, limits: Iterable[str], is_wsl: bool) -> list[Verdict]:
    """Check the available memory; no verdict where /proc/meminfo does not tell it."""
    sizes = {name: int(kib) * 1024 for name, kib in re.findall(r"(?m)^(\w+): +(\d+) kB$", meminfo)}
    if not {"MemTotal", "MemAvailable"} <= sizes.keys():
        return []
    total = min([sizes["MemTotal"], *(int(text) for text in limits if text.strip().isdecimal())])
    available = min(sizes["MemAvailable"], total)
    text = f"{format_bytes(total)}, {format_bytes(available)} available"
    if available >= _LITTLE_MEMORY:
        return [Verdict(OK, "memory", text)]
    remedy = "close other programs" + ("; raise memory=... in .wslconfig, see docs/wsl.md" if is_wsl else "")
    return [Verdict(WARN, "memory", f"{text}: too little memory may end the training", remedy)]


def check_disk(folder: str, free_bytes: int, is_wsl: bool) -> Verdict:
    """Check that a folder (an absolute path) has space and is not on a Windows disk seen from WSL."""
    text = f"{folder}: {format_bytes(free_bytes)} free"
    if free_bytes < _LITTLE_DISK:
        return Verdict(WARN, "disk", text, "free some space: a run takes about 1 GB; --keep=2 limits its snapshots")
    if is_wsl and re.match(r"/mnt/[a-z](/|$)", folder):
        text += ", on a Windows disk, which is many times slower from WSL"
        return Verdict(WARN, "disk", text, "keep program and data in the Linux home folder (cd ~)")
    return Verdict(OK, "disk", text)


def existing_folder(path: str) -> Path:
    """Return a folder with links resolved, or the nearest parent that exists."""
    folder = Path(os.path.expanduser(path)).resolve()
    return next(place for place in (folder, *folder.parents) if place.is_dir())
