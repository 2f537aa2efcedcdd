"""Settings that change while training: `start->end`, a half cosine over the first `schedule.burn_in_kimg`."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Self

QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the burn-in, as --dry-run shows them


@dataclass(frozen=True)
class Ramp:
    """A number that moves from `start` to `end` while the burn-in lasts, and stays there."""

    start: float
    end: float

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The ramp of "start->end". Raises ValueError."""
        start, arrow, end = text.partition("->")
        ramp = cls(float(start), float(end))
        if not (arrow and math.isfinite(ramp.start) and math.isfinite(ramp.end)):
            raise ValueError(text)
        return ramp

    def __str__(self) -> str:
        return f"{self.start!r}->{self.end!r}"

    def at(self, cur_nimg: int, burn_in_nimg: float) -> float:
        done = min(cur_nimg / burn_in_nimg, 1.0) if burn_in_nimg > 0 else 1.0
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * done)) / 2


Scheduled = float | Ramp


def lowest(value: Scheduled) -> float:
    return min(value.start, value.end) if isinstance(value, Ramp) else value


def highest(value: Scheduled) -> float:
    return max(value.start, value.end) if isinstance(value, Ramp) else value


def ramps(config: Any) -> dict[str, Ramp]:
    """The settings of a RunConfig that change, by their names as --set takes them."""
    groups = {name: group for name, group in vars(config).items() if dataclasses.is_dataclass(group)}
    settings = {f"{group}.{name}": value for group in groups for name, value in vars(groups[group]).items()}
    return {name: value for name, value in settings.items() if isinstance(value, Ramp)}


def schedule_table(config: Any) -> str:
    """Lines for people: the settings that change, and their values in the course of the burn-in; "" = none."""
    found, kimg = ramps(config), config.schedule.burn_in_kimg
    if not found:
        return ""
    lines = [f"{'schedule':<20}" + "".join(f"{f'{kimg * share:g} kimg':>14}" for share in QUARTERS)]
    for name, ramp in found.items():
        lines.append(f"{name:<20}" + "".join(f"{ramp.at(round(share * 1000), 1000):>14.4g}" for share in QUARTERS))
    return "\n".join(lines)
