"""Generators, discriminators and losses by `kind`. Imports no torch: the code of a kind is imported when it is built.

A new kind is one file with a frozen configuration class and the class that it configures, registered at its end:

    register("generator", HybridConfig, HybridGenerator)

and one line in MODULES, so that the file is found by its kind.
"""

import dataclasses
import importlib
from dataclasses import dataclass, field
from typing import Any, ClassVar

from dnnlib.dataclass_values import require, require_range
from training.schedule import Scheduled, lowest

MAX_LAYERS = 1000  # of a stage or network

# group -> kind -> module that registers it. The first kind of each group is the default; training.config, which has its
# configuration, registers it with the name of its class, so that settings are read without the code of networks and losses.
MODULES: dict[str, dict[str, str]] = {
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
        config: Its configuration; see the base classes below for what it must offer.
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


@dataclass(frozen=True)
class Kind:
    """A configuration whose class follows from its field `kind`."""

    group: ClassVar[str]

    kind: str = field(default="", kw_only=True)

    @classmethod
    def of_kind(cls, kind: str | None) -> type:
        """The configuration class of a kind of this group; None = the default. Raises ConfigError."""
        return entry(cls.group, kind).config

    def changed_kind(self, kind: str) -> Any:
        """The configuration of another kind, with the values of the fields that both have. Raises ConfigError."""
        cls = self.of_kind(kind)
        names = {item.name for item in dataclasses.fields(self)} & {item.name for item in dataclasses.fields(cls)}
        return cls(**{name: getattr(self, name) for name in names - {"kind"}})

    def fitted(self, spec: Any) -> Any:
        """This, or what suits the images where values taken over from another kind cannot."""
        return self

    def weight_settings(self) -> dict[str, object]:
        """The settings that decide what the weights compute: equal wherever weights are shared."""
        return dataclasses.asdict(self)

    def check(self, spec: Any) -> None:
        """Raise ConfigError where the settings do not suit the images."""


@dataclass(frozen=True)
class AnyGenerator(Kind):
    """What every generator's configuration has."""

    group = "generator"

    z_dim: int = field(default=512, kw_only=True)  # latent width
    w_dim: int = field(default=512, kw_only=True)  # style width
    mapping_layers: int = field(default=2, kw_only=True)  # linear layers from z to w
    mapping_lr_mult: float = field(default=0.01, kw_only=True)  # learning-rate multiplier of those layers
    w_avg_beta: float = field(default=0.995, kw_only=True)  # decay of the running mean of w
    noise: bool = field(default=True, kw_only=True)  # fresh noise in every layer while training

    def __post_init__(self) -> None:
        require_range("generator", self, "z_dim w_dim", 1)
        require_range("generator", self, "mapping_layers", 1, MAX_LAYERS)
        require_range("generator", self, "w_avg_beta", 0, 1)
        require(self.mapping_lr_mult > 0, f"generator.mapping_lr_mult must be positive, got {self.mapping_lr_mult}")


@dataclass(frozen=True)
class AnyDiscriminator(Kind):
    """What every discriminator's configuration has."""

    group = "discriminator"

    mbstd_group: int = field(default=1, kw_only=True)  # images compared with each other; divides a micro-batch
    freeze_layers: int = field(default=0, kw_only=True)  # layers, from the image on, that are not trained (--freezed)

    @property
    def lr_scale(self) -> float:
        """Factor on optimizer.d_lr."""
        return 1.0

    @property
    def is_san(self) -> bool:
        """Whether `forward` takes `in_two_terms` and has a SAN head."""
        return False


@dataclass(frozen=True)
class AnyLoss(Kind):
    """What every loss's configuration has."""

    group = "loss"
    is_relativistic: ClassVar[bool] = False  # whether it compares logits, so that the sign of one says nothing

    mixing_prob: float = field(default=0.0, kw_only=True)  # probability that a batch mixes the styles of two latents
    class_weight: Scheduled = field(default=0.0, kw_only=True)  # of D's cross-entropy over the classes of real images

    def __post_init__(self) -> None:
        require(lowest(self.class_weight) >= 0, f"loss.class_weight must be 0 or more, got {self.class_weight}")

    def check(self, spec: Any) -> None:
        require(spec.has_classes or self.class_weight == 0, "loss.class_weight needs images with classes, and --cond=1")

    def changed_kind(self, kind: str) -> Any:
        """Another loss begins with its own defaults: a weight of one means little in another."""
        return self if kind == self.kind else self.of_kind(kind)()

    @property
    def lazy_intervals(self) -> tuple[int, int]:
        """Batches between two separate regularisation steps of G and of D, which Adam is scaled for; 0 = no such steps."""
        return 0, 0

    def check_batch(self, micro_batch: int, group: int) -> None:
        """Raise ConfigError where the loss cannot cut a micro-batch as it must; `group` images are compared by D."""

    def training_flops(self, G: float, D: float) -> float:
        """Floating-point operations per training image, from those of the forward passes.

        A backward pass costs two forward passes, or one where no weights want a gradient.
        """
        return (3 * G + 2 * D) + (G + 6 * D)
