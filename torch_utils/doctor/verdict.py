"""The result of a check: how serious it is, what was found, and what to do."""

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "FAIL"  # FAIL: training is impossible


@dataclass(frozen=True)
class Verdict:
    """One line of output."""

    level: str  # ok, warn or FAIL
    subject: str  # what was checked
    text: str  # what was found
    remedy: str = ""  # what to do; "" = nothing

    def __str__(self) -> str:
        return f"{self.level:<4} {self.subject}: {self.text}{self.remedy and f' -> {self.remedy}'}"


def first_line(text: str) -> str:
    """Return the first line of a message, at most 200 characters."""
    return (text.strip().splitlines() or ["no message"])[0][:200]
