"""Settings of glibc's memory allocator, for tensors on the CPU.

By default glibc returns freed blocks above 32 MB to the system, and the next step gets the same memory again page by page,
each cleared by the kernel. A training step allocates the same blocks over and over, so keeping them costs no more memory
than the peak of a step.
"""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # parameters of mallopt(3)
KEEP = {M_MMAP_THRESHOLD: 2**30, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**26}  # bytes
DEFAULT = {M_MMAP_THRESHOLD: 2**25, M_TRIM_THRESHOLD: 2**26, M_TOP_PAD: 2**17}  # where glibc's own rules end up


def keep_freed_memory() -> bool:
    """Keep freed blocks for the next step, unless MALLOC_... or GLIBC_TUNABLES is set; return whether that worked."""
    return not is_set_by_user() and set_thresholds(KEEP)


def is_set_by_user() -> bool:
    return any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)


def set_thresholds(values: dict[int, int]) -> bool:
    """Set parameters of the allocator; return False if the C library is not glibc or refuses one of them."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    accepted = [mallopt(parameter, value) for parameter, value in values.items()]
    return all(accepted)
