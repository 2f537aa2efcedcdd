"""How the C library hands out memory for tensors on the CPU.

By default glibc returns blocks above 32 MB to the system when they are freed, and the top of its heap as well; the next
step gets the same memory anew, page by page, each cleared by the kernel. A training step takes and frees the same blocks
over and over, so keeping them costs no more memory than the step needs at its peak.
"""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # parameters of mallopt(3)
KEEP = {M_MMAP_THRESHOLD: 2**30, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**26}  # bytes
DEFAULT = {M_MMAP_THRESHOLD: 2**25, M_TRIM_THRESHOLD: 2**26, M_TOP_PAD: 2**17}  # what glibc's own rules end up with


def keep_freed_memory() -> bool:
    """Have freed blocks kept for the next step; returns whether that could be arranged.

    What the user has set in the environment (MALLOC_..., GLIBC_TUNABLES) stays.
    """
    return not is_set_by_user() and set_thresholds(KEEP)


def is_set_by_user() -> bool:
    """Whether the environment tells the allocator what to do."""
    return any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)


def set_thresholds(values: dict[int, int]) -> bool:
    """Set parameters of glibc's allocator; False where it is another C library or refuses one, as older ones do large blocks."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    accepted = [mallopt(parameter, value) for parameter, value in values.items()]
    return all(accepted)
