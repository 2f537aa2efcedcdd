"""What was measured, as rows of a table and of a JSON file."""

import contextlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from dnnlib.files import atomic_write

HEADER = (
    f"{'preset':<10}{'phase':<30}{'mode':<22}{'batch':>5}{'images/s':>11}{'s/kimg':>9}{'peak MB':>10}{'saved MB/img':>14}"
    f"{'of matrix rate':>16}{'ratio':>8}"
)


@dataclass(frozen=True)
class Row:
    """One way to compute one thing; None where a number does not apply."""

    preset: str
    phase: str
    mode: str  # baseline or how ours computed
    device: str
    batch: int
    images_per_sec: float
    peak_mem_mb: float | None  # weights and optimizers of this one, and the most that the call took beyond them
    saved_mb_per_image: float | None  # stored by the phase's own network for its backward pass
    ratio_to_baseline: float | None  # images/s of this by those of the baseline
    matrix_rate_share: float | None = None  # arithmetic of the model by what the device did in a large matrix product

    @property
    def sec_per_kimg(self) -> float:
        """Seconds for a thousand images."""
        return 1000 / self.images_per_sec

    def line(self, raised: "Row | None" = None) -> str:
        """Return the row for people; `raised` is the same under other settings of the allocator, whose ratio comes last."""
        text = f"{self.preset:<10}{self.phase:<30}{self.mode:<22}{self.batch:>5}{self.images_per_sec:>11.2f}"
        text += f"{self.sec_per_kimg:>9.2f}{number(self.peak_mem_mb, 10)}{number(self.saved_mb_per_image, 14)}"
        share = "" if self.matrix_rate_share is None else f"{self.matrix_rate_share:.1%}"
        text += f"{share:>16}{number(self.ratio_to_baseline, 8, 2)}"
        return text if raised is None else f"{text}{number(raised.ratio_to_baseline, 8, 2)}"


def number(value: float | None, width: int, digits: int = 1) -> str:
    """Return a number of this width, or blanks."""
    return " " * width if value is None else f"{value:>{width}.{digits}f}"


def machine(device: torch.device) -> dict[str, str | int]:
    """Return the facts of the machine."""
    return {
        "device": device_name(device),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def cpu_name() -> str:
    """Return the model of the CPU, as far as the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def write_rows(path: Path, device: torch.device, rows: Sequence[Row], raised: Sequence[Row] = ()) -> None:
    """Write the rows, and those under other settings of the allocator, as JSON."""
    plain = {"machine": machine(device), "rows": [as_dict(row) for row in rows]}
    if raised:
        plain["rows_malloc_raised"] = [as_dict(row) for row in raised]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write((json.dumps(plain, indent=1) + "\n").encode())


def as_dict(row: Row) -> dict[str, object]:
    """Return a row as JSON has it."""
    return {**asdict(row), "sec_per_kimg": row.sec_per_kimg}


def read_rows(path: Path) -> list[Row]:
    """Return the rows that `write_rows` wrote."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return [Row(**{name: value for name, value in row.items() if name != "sec_per_kimg"}) for row in rows]
