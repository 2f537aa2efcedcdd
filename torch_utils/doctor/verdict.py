"""What a check finds: how bad it is, what was seen, and what to do about it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "FAIL"  # FAIL: training is impossible


@dataclass(frozen=True)
class Verdict:
    """One finding."""

    level: str  # ok, warn or FAIL
    subject: str  # what was looked at
    text: str  # what was seen
    remedy: str = ""  # what to do; "" = nothing

    def __str__(self) -> str:
        line = f"{self.level:<4} {self.subject}: {self.text}"
        return f"{line}\n     -> {self.remedy}" if self.remedy else line


def guarded(subject: str, check: Callable[[], Iterable[Verdict]]) -> list[Verdict]:
    """Return what a check finds; a check that fails is a finding too."""
    try:
        return list(check())
    except Exception as error:  # whatever the machine has in store, the other checks go on
        seen = f"this check itself failed ({type(error).__name__}: {first_line(str(error))})"
        return [Verdict(WARN, subject, seen, "training may work all the same: try it")]


def first_line(text: str) -> str:
    """Return the beginning of a message."""
    return (text.strip().splitlines() or ["no message"])[0][:200]
