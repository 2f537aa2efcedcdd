"""Typed dataclasses from plain values and from command-line text, and back, with errors that name the field."""

import dataclasses
import math
import types
from collections.abc import Iterable
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
MAX_INT = 2**63 - 1
MAX_FLOAT = 3.4e38  # float32, in which networks compute, holds nothing larger


class ConfigError(ValueError):
    """A setting that cannot be used; the message names it, its value and the remedy."""


def require(condition: bool, message: str) -> None:
    """Raise ConfigError(message) unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def require_representable(value: Any, where: str, shown: object = None) -> None:
    """Raise ConfigError for a number that is not finite, or that neither int64 nor float32 can hold."""
    if isinstance(value, float):
        shown = value if shown is None else shown
        require(math.isfinite(value), f"{where} must be a finite number, got {shown}")
        require(abs(value) <= MAX_FLOAT, f"{where} is too large; at most {MAX_FLOAT}, got {shown}")
    elif isinstance(value, int):
        require(abs(value) <= MAX_INT, f"{where} is too large; at most {MAX_INT}")


def require_range(group: str, values: object, names: str, low: float, high: float = math.inf) -> None:
    """Raise ConfigError unless each of the fields, a list with spaces, is None or lies in low..high."""
    for name in names.split():
        value = getattr(values, name)
        bounds = f"be {low} or more" if high == math.inf else f"lie in {low}..{high}"
        for number in value if isinstance(value, tuple) else [value]:
            require(number is None or low <= number <= high, f"{group}.{name} must {bounds}, got {number}")


def to_plain(value: Any) -> Any:
    """The same value as JSON and weights-only files hold it: tuples as lists, dataclasses as dicts or as their text."""
    if hasattr(value, "from_text"):
        return str(value)
    if dataclasses.is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, list | tuple) else value


def build(cls: type[T], values: dict[str, Any], where: str) -> T:
    """An instance of a dataclass from plain nested values; `where` names it in errors.

    A class with a class method `of_kind` stands for several classes: values["kind"] chooses one, None the default.
    """
    if hasattr(cls, "of_kind"):
        cls = getattr(cls, "of_kind")(values.get("kind"))  # noqa: B009, of those classes that have it
    hints = field_types(cls)
    unknown = sorted(set(values) - set(hints))
    require(not unknown, f"{where} has no field {', '.join(unknown)}; it has {', '.join(hints)}")
    return cls(**{name: convert(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def choose(hint: Any, is_list: bool, is_text: bool) -> Any:
    """Which type of a union a value is of: the tuple, the one written as text, or else the first."""
    found = [arg for arg in get_args(hint) if arg is not type(None)]
    if is_list:
        return next((arg for arg in found if get_origin(arg) is tuple), found[0])
    return next((arg for arg in found if is_text and hasattr(arg, "from_text")), found[0])


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def from_text(hint: Any, text: str, where: str) -> Any:
    """A value of a class that has `from_text`; raises ConfigError where the text is none."""
    try:
        value = hint.from_text(text)
    except ValueError:
        raise ConfigError(f"{where} must be a number, or two as 'start->end' in quotes, got '{text}'") from None
    for number in dataclasses.astuple(value):
        require_representable(number, where, f"'{text}'")
    return value


def field_types(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def convert(hint: Any, value: Any, where: str) -> Any:
    """A plain value as the annotated type; raises ConfigError where it does not fit."""
    if hasattr(hint, "from_text"):
        return from_text(hint, value, where)
    if dataclasses.is_dataclass(hint):
        require(isinstance(value, dict), f"{where} must be a group of settings, got {value!r}")
        return build(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        return convert(choose(hint, isinstance(value, list | tuple), isinstance(value, str)), value, where)
    if get_origin(hint) is tuple:
        require(isinstance(value, list | tuple), f"{where} must be a list, got {value!r}")
        return tuple(convert(get_args(hint)[0], item, where) for item in value)
    require_representable(value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    require(type(value) is hint, f"{where} must be of type {hint.__name__}, got {value!r}")
    return value


def parse(hint: Any, text: str, where: str) -> Any:
    """The value of a setting from what was typed: `0.1`, `true`, `none`, `256,64`; raises ConfigError."""
    if get_origin(hint) in (Union, types.UnionType):
        if text.lower() == "none" and type(None) in get_args(hint):
            return None
        return parse(choose(hint, "," in text, not is_number(text)), text, where)
    if hasattr(hint, "from_text"):
        return from_text(hint, text, where)
    if get_origin(hint) is tuple:
        return tuple(parse(get_args(hint)[0], item, where) for item in text.split(",") if item)
    if hint is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        require(text.lower() in words, f"{where} must be true or false, got '{text}'")
        return words[text.lower()]
    try:
        value = hint(text)
    except ValueError:
        raise ConfigError(f"{where} must be of type {hint.__name__}, got '{text}'") from None
    require_representable(value, where, f"'{text}'")
    return value


def override(config: T, path: str, text: str) -> T:
    """A copy of the config with one setting replaced, such as `override(config, "loss.r1_gamma", "0.1")`."""
    return override_all(config, [(path, text)])


def override_all(config: T, settings: Iterable[tuple[str, str]]) -> T:
    """A copy of the config with settings (path, text) replaced; those of one group together, as they may need each other."""
    changed: dict[str, dict[str, Any]] = {}
    for path, text in settings:
        group, name, value = parse_setting(config, path, text)
        values = getattr(config, group)
        if name == "kind" and hasattr(values, "changed_kind"):
            config = dataclasses.replace(config, **{group: values.changed_kind(value)})  # type: ignore[type-var]
        else:
            changed.setdefault(group, {})[name] = value
    groups = {group: dataclasses.replace(getattr(config, group), **values) for group, values in changed.items()}
    return dataclasses.replace(config, **groups)  # type: ignore[type-var]


def parse_setting(config: Any, path: str, text: str) -> tuple[str, str, Any]:
    """Group, name and value of a setting `group.name`; raises ConfigError."""
    where = f"--set {path}"
    group, _, name = path.partition(".")
    groups = field_types(type(config))
    require(group in groups, f"{where}: there is no '{group}'; choose from {', '.join(groups)}")
    values = getattr(config, group)
    require(dataclasses.is_dataclass(values), f"{where}: '{group}' is a single value")
    hints = field_types(type(values))
    require(bool(name), f"{where}: name one setting of it, such as {group}.{next(iter(hints))}")
    require(name in hints, f"{where}: there is no '{name}'; choose from {', '.join(hints)}")
    return group, name, parse(hints[name], text, where)
