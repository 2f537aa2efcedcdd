import os
import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, torch
from torch_utils import allocator
print(allocator.keep_freed_memory())
def step():
    for _ in range(20):
        torch.ones(2**24)  # 64 MB
step()  # blocks find their places
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(**environment: str) -> tuple[bool, int]:
    """Whether memory is kept, and the page faults of a step that takes and frees what an earlier one took."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", STEPS]
    done = subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, check=True)
    is_kept, faults = done.stdout.split()
    return is_kept == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_freed_memory_is_kept_unless_the_user_says_otherwise() -> None:
    is_kept, faults = run()
    is_kept_too, faults_without = run(MALLOC_MMAP_THRESHOLD_="1000000")
    assert is_kept and not is_kept_too
    assert 3 * faults < faults_without  # blocks still find places in some steps, but are not taken anew in each
