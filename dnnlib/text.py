"""Text to numbers for command lines, numbers to short text for people."""

import contextlib
import math
import re
from collections.abc import Iterable

_MAX_NUMBERS = 10_000_000  # of a list: more would fill the memory before anything is done with them


def parse_int_list(text: str) -> list[int]:
    """Return the numbers of a list with ranges: "0-2,20" gives [0, 1, 2, 20]; both ends of a range belong to it.

    Raises ValueError for anything else, and for more than ten million numbers.
    """
    ranges: list[range] = []
    count = 0
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            where = f" at {part!r}" if part != text else ""
            raise ValueError(f"{text!r} is not a list of numbers{where}: write for example 0-15,20")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"{text!r}: the range {part.strip()!r} runs backwards; write {last}-{first}")
        count += last - first + 1
        if count > _MAX_NUMBERS:
            raise ValueError(f"{text!r} has more than {_MAX_NUMBERS:,} numbers, the limit; write shorter ranges")
        ranges.append(range(first, last + 1))
    return [number for numbers in ranges for number in numbers]


def format_int_list(numbers: Iterable[int]) -> str:
    """Return ascending numbers as a list with ranges: [0, 1, 2, 20] gives "0-2,20"."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    return ",".join("-".join(map(str, ends)) for ends in ranges)


def parse_number_list(text: str) -> list[float]:
    """Return the numbers of a list: "-1,0,0.5" gives [-1.0, 0.0, 0.5]. Raises ValueError for anything else."""
    with contextlib.suppress(ValueError):
        numbers = [float(part) for part in text.split(",")]
        if all(map(math.isfinite, numbers)):
            return numbers
    raise ValueError(f"{text!r} is not a list of numbers; write for example -1,0,0.5")


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as "2h50m", "90m", "1d 12h" or "45s"."""
    match = re.fullmatch(r"\s*(?:(\d{1,9})d)?\s*(?:(\d{1,9})h)?\s*(?:(\d{1,9})m)?\s*(?:(\d{1,9})s)?\s*", text.lower())
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not a duration; write for example 2h50m, 90m or 1d12h")
    days, hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds


def format_duration(sec: float) -> str:
    """Return a duration in its two or three largest units: "17s", "4m 05s", "1h 02m 03s", "1d 02h 03m"."""
    total = round(max(sec, 0))
    minutes, seconds = divmod(total, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02d}h {minutes:02d}m"
    if hours:
        return f"{hours}h {minutes:02d}m {seconds:02d}s"
    return f"{minutes}m {seconds:02d}s" if minutes else f"{seconds}s"


def format_bytes(n: float) -> str:
    """Return a size in binary units: "512 B", "1.5 KiB", "20.0 GiB"."""
    if n < 1024:
        return f"{n:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        n /= 1024
        if n < 1023.95:  # prints as 1024.0 from here on
            return f"{n:.1f} {unit}"
    return f"{n / 1024:.1f} TiB"


def first_line(error: object) -> str:
    """Return the first line of an error's message, or its class; of an error that torch.compile wrapped, that one's."""
    error = getattr(error, "inner_exception", error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
