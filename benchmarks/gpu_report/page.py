"""The report as Markdown, made of its record as plain values; its tables are readable on a terminal, too."""

from collections.abc import Iterator, Sequence
from typing import Any

Part = dict[str, Any]
Cell = str | float | int | None


def page(record: dict[str, Any]) -> str:
    """Return the whole page."""
    lines = ["# GPU report", ""]
    if record["status"] != "done":
        lines += [f"This report is not complete: {record['status']}.", ""]
    lines += table(("", ""), list(record["facts"].items()))
    lines += ["", *summary(record)]
    for name, caption in (("losses.png", "Losses side by side"), ("training.png", "Losses of the training")):
        lines += image(record, name, caption)
    lines += image(record, "grid.png", "Generated images") + image(record, "reals.png", "Real images")
    for part in record["parts"]:
        if part["output"]:
            lines += [f"## {part['title']}", "", f"`{part['command']}`", "", "```", *part["output"], "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def summary(record: dict[str, Any]) -> list[str]:
    """Return the tables, which are also what the command prints at its end."""
    parts = record["parts"]
    lines = [f"## Parts ({record['seconds']:.0f} s of {record['minutes'] * 60:.0f})", ""]
    rows = [(part["title"], part["status"], part["seconds"] or None, part["note"]) for part in parts]
    lines += table(("part", "result", "s", ""), rows)
    for title, header, found in (
        ("Modes side by side", MODES_HEADER, list(mode_rows(parts))),
        ("Steps against the published formulation", STEPS_HEADER, list(step_rows(parts))),
        ("Host synchronisation", ("batch", "mode", "phase", "where"), list(wait_rows(parts))),
        ("Training", ("", ""), list(training_rows(parts))),
    ):
        if found:
            lines += ["", f"## {title}", "", *table(header, found)]
    return [*lines, ""]


MODES_HEADER = (
    "mode", "steps", "images/s", "start-up s", "peak MB", "reserved MB", "G first", "D first", "R1 first", "G last", "D last",
    "not finite",
)  # fmt: skip


def mode_rows(parts: Sequence[Part]) -> Iterator[tuple[Cell, ...]]:
    """Rows of the modes: speed, memory, losses of the first step and means of the last quarter."""
    for part in parts:
        rows = part["values"].get("rows", [])
        if not part["name"].startswith("mode:") or not rows:
            continue
        values, first = part["values"], rows[0]
        late = [row for row in rows if row["step"] > rows[-1]["step"] * 3 / 4]
        yield (
            part["name"].removeprefix("mode:"), rows[-1]["step"], values.get("images_per_sec"), values.get("start_up_sec"),
            values.get("peak_mb"), values.get("reserved_mb"), *(digits(first.get(name)) for name in ("G", "D", "r1")),
            *(digits(mean([row.get(name) for row in late])) for name in ("G", "D")), values.get("nonfinite_steps"),
        )  # fmt: skip


STEPS_HEADER = ("batch", "phase", "mode", "images/s", "s/kimg", "peak MB", "ratio")


def step_rows(parts: Sequence[Part]) -> Iterator[tuple[Cell, ...]]:
    """Rows of benchmarks/train_step.py."""
    for part in parts:
        if part["name"].startswith("steps:"):
            for row in part["values"].get("table", []):
                ratio = row["ratio_to_baseline"]
                yield (
                    row["batch"], row["phase"], row["mode"], row["images_per_sec"], row["sec_per_kimg"],
                    row["peak_mem_mb"], None if ratio is None else f"{ratio:.2f}",
                )  # fmt: skip


def wait_rows(parts: Sequence[Part]) -> Iterator[tuple[Cell, ...]]:
    """Return the rows of where a step waits for the GPU."""
    for part in parts:
        for wait in part["values"].get("waits", []):
            yield wait["batch"], wait["mode"], wait["phase"], wait["where"]


def training_rows(parts: Sequence[Part]) -> Iterator[tuple[Cell, ...]]:
    """Return the rows of the training and its metrics."""
    for part in parts:
        if part["name"] in ("training", "proxies"):
            for name, value in part["values"].items():
                if name not in ("rows", "summary"):
                    yield name, value


def image(record: dict[str, Any], name: str, caption: str) -> list[str]:
    """Return an image of the folder, if it is there."""
    return [f"![{caption}]({name})", ""] if name in record["files"] else []


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[str]:
    """Return a Markdown table whose columns line up."""
    cells = [[text(value) for value in row] for row in [header, *rows]]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines


def text(value: Cell) -> str:
    """Return a cell of a table."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def digits(value: float | None) -> str:
    """Return a loss with enough digits to tell modes apart."""
    return "" if value is None else f"{value:.5f}"


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of what is there."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None
