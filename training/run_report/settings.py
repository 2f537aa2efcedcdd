"""The settings of a run as text, and how they differ from the preset."""

from typing import Any

OWN = ("preset", "data.path")  # always differ


def lines(options: dict[str, Any]) -> dict[str, str]:
    """Return the value of every setting as text, by its name for --set."""
    found: dict[str, str] = {}
    for group, values in options.items():
        if isinstance(values, dict):
            found |= {f"{group}.{name}": text(value) for name, value in values.items()}
        else:
            found[group] = text(values)
    return found


def differences(options: dict[str, Any], preset_options: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return (name, value, value of the preset) of each setting that differs."""
    ours, theirs = lines(options), lines(preset_options)
    return [
        (name, value, theirs.get(name, "none"))
        for name, value in ours.items()
        if name not in OWN and theirs.get(name) != value
    ]


def text(value: Any) -> str:
    """Return a setting as --set takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(text(item) for item in value) or "none"
    return "none" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)
