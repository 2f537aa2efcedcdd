"""What a metric is: which features it takes of which images, and the number it makes of them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch

from metrics.detectors import Detector
from metrics.features import FeatureRecord, Keep
from metrics.images import RealImages, Sample

Setting = str | int | float | bool

MAX_GEN = 10_000_000  # generated images
GENERATED = "{num_gen:,} generated"  # in a definition of a family


@dataclass(frozen=True)
class Measurement:
    value: float
    floor: float | None = None  # the value of real images against real ones; None = the metric knows none
    details: dict[str, float] = field(default_factory=dict)  # further figures by name
    settings: Mapping[str, Setting] = field(default_factory=dict)  # of the computation, such as ddof


@dataclass(frozen=True)
class Inputs:
    """What a metric computes from: on the first process, with the features of all."""

    detector: Detector
    device: torch.device  # where the detector is; rows of features are on the CPU
    fake: FeatureRecord
    real: FeatureRecord | None = None  # None = it takes generated images only

    @property
    def both(self) -> tuple[FeatureRecord, FeatureRecord]:
        assert self.real is not None  # the metric asks for real features
        return self.real, self.fake


@dataclass(frozen=True)
class RealUse:
    """What a metric takes of the real images."""

    keep: Keep
    as_trained: bool = False  # flipped ones after the others, where training flips
    max_count: int | None = None  # the first so many; None = all


def check_count(real: RealImages, least: int = 2) -> None:
    """Raise ValueError for fewer than `least` real images."""
    if real.count < least:
        raise ValueError(f"the real set has {real.count} images; this metric takes at least {least}")


@dataclass(frozen=True)
class Metric:
    """What a number means and how it is computed."""

    definition: str  # one sentence
    detector: str  # whose features it takes
    measure: Callable[[Inputs], Measurement]
    keep: Keep = Keep.ROWS  # of the generated images' features
    real: RealUse | None = None  # None = it takes generated images only
    num_gen: int = 0  # generated images; of a family: set by `Family.find`
    check: Callable[[RealImages], None] = check_count  # raises ValueError for unsuitable images
    comparable_to_published: bool = True
    higher_is_better: bool = False
    sample: Sample = Sample.IMAGES


@dataclass(frozen=True)
class Family:
    """A metric for any number of generated images, which its name has as 96, 5k or 50k."""

    template: str  # the name, with {count} for the number
    metric: Metric  # without its number
    min_gen: int = 2  # the smallest number
    standard_count: str = "50k"  # the number that publications have
    standard_name: str = ""  # where that has another form than the template

    def standard(self) -> tuple[str, Metric]:
        """Return name and metric for the usual number of images."""
        name = self.template.format(count=self.standard_count)
        metric = self.find(name)
        assert metric is not None
        return self.standard_name or name, metric

    def find(self, name: str) -> Metric | None:
        """Return the metric of a name; None if the name is of another family. Raises ValueError for a small number."""
        match = re.fullmatch(self.template.format(count="([1-9][0-9]*)(k?)"), name)
        if match is None:
            return None
        num_gen = int(match[1]) * (1000 if match[2] else 1)
        if num_gen < self.min_gen:
            raise ValueError(f"{name} stands for {num_gen} generated images; the least number is {self.min_gen}")
        if num_gen > MAX_GEN:
            raise ValueError(f"{name} stands for {num_gen} generated images; the largest number is {MAX_GEN}")
        return replace(self.metric, num_gen=num_gen, definition=self.metric.definition.format(num_gen=num_gen))
