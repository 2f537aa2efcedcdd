"""Checks of the computer: processors, memory, shared memory, open files."""

from collections.abc import Iterable

from dnnlib.text import format_bytes
from torch_utils.doctor.verdict import OK, WARN, Verdict

_LITTLE_MEMORY = 3 << 30  # the demo takes about one, and the system wants some
_LITTLE_SHARED = 512 << 20  # Docker gives 64 MiB
_FEW_FILES = 1024


def check_cpu(cores: int, omp_threads: str | None, has_gpu: bool) -> list[Verdict]:
    """Check the number of cores, and $OMP_NUM_THREADS where it is set."""
    text = f"{cores} cores{'' if omp_threads is None else f', OMP_NUM_THREADS={omp_threads}'}"
    if not omp_threads:
        return [Verdict(OK, "CPU", text)]
    if not omp_threads.isdecimal() or int(omp_threads) == 0:
        return [Verdict(WARN, "CPU", f"{text}, which is no number of threads", "unset OMP_NUM_THREADS")]
    if int(omp_threads) > cores:
        return [Verdict(WARN, "CPU", f"{text}: more threads than cores slow each other down", "unset OMP_NUM_THREADS")]
    if int(omp_threads) == 1 < cores and not has_gpu:
        return [Verdict(WARN, "CPU", f"{text}: PyTorch will use one core", "unset OMP_NUM_THREADS")]
    return [Verdict(OK, "CPU", text)]


def memory(meminfo: str, limits: Iterable[str]) -> tuple[int, int]:
    """Return the bytes of memory in all and available.

    Args:
        meminfo: The text of /proc/meminfo.
        limits: The texts of the files in which a container's limit may stand.
    """
    lines = (line.split() for line in meminfo.splitlines())
    sizes = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3}
    total = min([sizes["MemTotal"], *(int(text) for text in limits if text.strip().isdecimal())])
    return total, min(sizes["MemAvailable"], total)


def check_memory(total: int, available: int, is_wsl: bool) -> list[Verdict]:
    """Check the memory that is there and free."""
    text = f"{format_bytes(total)}, {format_bytes(available)} of them available"
    if available >= _LITTLE_MEMORY:
        return [Verdict(OK, "memory", text)]
    remedy = "close other programs"
    if is_wsl and total < 2 * _LITTLE_MEMORY:
        remedy = "give WSL more of the computer's: memory=... in .wslconfig, see docs/wsl.md"
    return [Verdict(WARN, "memory", f"{text}: training may be killed for lack of it", remedy)]


def check_shared_memory(total: int | None) -> list[Verdict]:
    """Check /dev/shm, through which processes that read pictures hand them over; None = there is no such place."""
    if total is None:
        return [Verdict(OK, "shared memory", "no /dev/shm on this system")]
    text = f"/dev/shm has {format_bytes(total)}"
    if total >= _LITTLE_SHARED:
        return [Verdict(OK, "shared memory", text)]
    remedy = "docker run --shm-size=2g, or train with --workers=0"
    return [Verdict(WARN, "shared memory", f"{text}: reading processes may die of a bus error", remedy)]


def check_open_files(limit: int | None) -> list[Verdict]:
    """Check how many files a process may have open; None = the system does not say."""
    if limit is None or limit < 0:  # no limit
        return []
    if limit >= _FEW_FILES:
        return [Verdict(OK, "open files", f"up to {limit:,}")]
    return [
        Verdict(WARN, "open files", f"no more than {limit}, too few for reading processes", f"ulimit -n {_FEW_FILES}")
    ]
