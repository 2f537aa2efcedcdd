"""Generators, discriminators and losses by `kind`. Imports no torch: the code of a kind is imported when it is built.

A new kind is one file with a frozen configuration class and the class that it configures, registered at its end:

    register("generator", HybridConfig, HybridGenerator)

and one line in MODULES, so that the file is found by its kind.
"""

import importlib
from dataclasses import dataclass
from typing import Any

from dnnlib.dataclass_values import require

MODULES: dict[str, dict[str, str]] = {  # group -> kind -> module that registers it
    "generator": {"styleformer": "training.config", "hybrid": "training.networks.hybrid"},
    "discriminator": {"stylegan2": "training.config", "vit": "training.networks.vit_discriminator"},
    "loss": {"logistic": "training.config", "relativistic": "training.losses.relativistic"},
}
DEFAULT_KINDS = {group: next(iter(kinds)) for group, kinds in MODULES.items()}


@dataclass(frozen=True)
class Entry:
    """A kind: its configuration class, and the class to build or where that is, as "module:name"."""

    config: type
    target: Any


ENTRIES: dict[tuple[str, str], Entry] = {}


def register(group: str, config: type, target: Any) -> None:
    """Make a kind known: `config` is a frozen dataclass whose field `kind` has the name of the kind as its default.

    Args:
        group: generator, discriminator or loss.
        config: Its configuration; see the base classes in training/config.py for what it must offer.
        target: The class to build, or "module:name" of it, imported when first built. Networks are built from
            (config, DatasetSpec), losses from (TrainState).
    """
    ENTRIES[group, config.kind] = Entry(config, target)  # type: ignore[attr-defined]


def entry(group: str, kind: str | None = None) -> Entry:
    """The entry of a kind; None = the default one. Raises ConfigError naming the known kinds."""
    kind = kind or DEFAULT_KINDS[group]
    if (group, kind) not in ENTRIES and kind in MODULES[group]:
        importlib.import_module(MODULES[group][kind])
    known = sorted({*MODULES[group], *(name for other, name in ENTRIES if other == group)})
    require((group, kind) in ENTRIES, f"{group}.kind must be one of {', '.join(known)}; got '{kind}'")
    return ENTRIES[group, kind]


def create(group: str, kind: str, *arguments: Any) -> Any:
    target = entry(group, kind).target
    if isinstance(target, str):
        module, name = target.split(":")
        target = getattr(importlib.import_module(module), name)
    return target(*arguments)
