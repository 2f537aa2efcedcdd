"""The augmentation pipe: random transforms of all images that the discriminator sees.

Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data" (ADA), appendix B.
"""

import math
from collections.abc import Collection
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from torch_utils.ops.upfirdn2d import setup_filter
from training.augment.transforms import Affine, compose, cut_out, filter_bands, per_axis, recolor, warp

# Symlets, the least asymmetric of the compactly supported orthogonal wavelets: low-pass filters of 4 and 12 taps.
SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # expected fractions of a natural image's power, lowest band first

SHIFT_INT_MAX = 0.125  # fraction of the image size, uniform in both directions
SCALE_STD = 0.2  # log2
ANISO_STD = 0.2  # log2
SHIFT_STD = 0.125  # fraction of the image size
BRIGHTNESS_STD = 0.2  # of the range -1..1
CONTRAST_STD = 0.5  # log2
SATURATION_STD = 1.0  # log2
BAND_STD = 1.0  # log2
NOISE_STD = 0.1  # of the range -1..1
CUTOUT_SIZE = 0.5  # fraction of the image size


_BLIT = ("xflip", "rotate90", "xint")  # xint: shift by whole pixels
_GEOM = ("scale", "rotate", "aniso", "xfrac")  # aniso: stretch along one axis, shrink along the other
_COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")

PIPES: dict[str, tuple[str, ...]] = {  # the transforms of each, with probability p
    "blit": _BLIT,
    "geom": _GEOM,
    "color": _COLOR,
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
    "bg": (*_BLIT, *_GEOM),
    "bgc": (*_BLIT, *_GEOM, *_COLOR),
    "bgcf": (*_BLIT, *_GEOM, *_COLOR, "imgfilter"),
    "bgcfn": (*_BLIT, *_GEOM, *_COLOR, "imgfilter", "noise"),
    "bgcfnc": (*_BLIT, *_GEOM, *_COLOR, "imgfilter", "noise", "cutout"),
    "r3": (*_BLIT, *_GEOM, *_COLOR, "cutout"),  # of R3GAN (arXiv 2501.05441)
}
STRENGTHS = {"r3": dict.fromkeys(_COLOR, 0.5)}  # factors on p of the transforms of a pipe, where they are not 1


def band_filters() -> np.ndarray:
    """Return filters that split a signal into four octaves, lowest first, and add up to the identity, [4, 43]."""
    taps = np.array(SYM2)
    low = np.convolve(taps, taps[::-1]) / 2  # half-band and without delay: low + high is the identity
    high = low * (-1.0) ** np.arange(-3, 4)
    bands = [np.ones(1)]
    for _ in range(3):  # move the bands down by an octave and add a new highest one
        bands = [np.convolve(np.kron(band, [1, 0])[:-1], low) for band in bands]
        bands.append(np.pad(high, (len(bands[0]) - len(high)) // 2))
    return np.stack(bands)


class Amount(NamedTuple):
    """A random parameter of a transform: `neutral + scale * number`, or `neutral` if its gate is closed."""

    transform: str  # that it belongs to; its gate is open with the probability of that
    distribution: str  # of the number: uniform (-1..1), normal (standard), choice (0 .. options - 1) or certain (1)
    scale: float
    neutral: float = 0.0
    columns: int = 1  # numbers per image that share a gate
    options: int = 1
    gates: int = 1  # amounts of this transform; at least one of their gates is open with its probability


# Geometric transforms are applied inverted, from output to input pixels: shifts and scales are negated.
AMOUNTS: dict[str, Amount] = {
    "xflip": Amount("xflip", "choice", -2, neutral=1, options=2),  # factor on x
    "rotate90": Amount("rotate90", "choice", math.pi / 2, options=4),
    "xint": Amount("xint", "uniform", -SHIFT_INT_MAX, columns=2),
    "scale": Amount("scale", "normal", -SCALE_STD),
    # Rotations before and after the stretch: neither happens with probability 1 - p.
    "rotate": Amount("rotate", "uniform", math.pi, gates=2),
    "aniso": Amount("aniso", "normal", ANISO_STD),
    "rotate_again": Amount("rotate", "uniform", math.pi, gates=2),
    "xfrac": Amount("xfrac", "normal", -SHIFT_STD, columns=2),
    "brightness": Amount("brightness", "normal", BRIGHTNESS_STD),
    "contrast": Amount("contrast", "normal", CONTRAST_STD),
    "lumaflip": Amount("lumaflip", "choice", -2, neutral=1, options=2),  # factor on the luma
    "hue": Amount("hue", "uniform", math.pi),
    "saturation": Amount("saturation", "normal", SATURATION_STD),
    **{f"band{i}": Amount("imgfilter", "normal", BAND_STD) for i in range(len(BAND_POWER))},
    "noise": Amount("noise", "normal", NOISE_STD),
    "cutout": Amount("cutout", "certain", CUTOUT_SIZE),
}


class AugmentPipe(nn.Module):
    """Applies each transform of a pipe to each image with probability p, times its strength, and by a random amount."""

    geometry_filter: Tensor
    bank: Tensor
    band_power: Tensor
    amount_table: Tensor
    stretched_axes: Tensor

    def __init__(self, pipe: str | Collection[str] = "bgc") -> None:
        """Args: a name in `PIPES`, or names of transforms."""
        super().__init__()
        self.transforms = frozenset(PIPES[pipe] if isinstance(pipe, str) else pipe)
        self.strengths = dict.fromkeys(self.transforms, 1.0) | (
            STRENGTHS.get(pipe, {}) if isinstance(pipe, str) else {}
        )
        self.is_geometric, self.is_chromatic = (
            not self.transforms.isdisjoint(names) for names in (PIPES["bg"], _COLOR)
        )
        names = [name for name, amount in AMOUNTS.items() if amount.transform in self.transforms]
        self.runs, self.compiled_runs = random_runs(names), random_runs(names, by_distribution=True)
        self.register_buffer("geometry_filter", setup_filter(SYM6), persistent=False)
        self.register_buffer("bank", torch.from_numpy(band_filters()).float(), persistent=False)
        self.register_buffer("band_power", torch.tensor(BAND_POWER), persistent=False)
        self.register_buffer("stretched_axes", torch.tensor([-1.0, 1.0]), persistent=False)  # x shrinks where y grows
        self.register_buffer("amount_table", self._amount_table(), persistent=False)

    def _amount_table(self) -> Tensor:
        """Return a column for each number: how it follows from a random one, and the probability of its gate."""
        spread = {"uniform": (2.0, -1.0), "normal": (1.0, 0.0), "certain": (1.0, 0.0)}  # factor and offset
        columns = []
        for amount in AMOUNTS.values():
            factor, offset = spread.get(amount.distribution, (float(amount.options), 0.0))
            is_whole, strength = float(amount.distribution == "choice"), self.strengths.get(amount.transform, 0.0)
            column = [factor, offset, is_whole, amount.scale, amount.neutral, strength, 1 / amount.gates]
            columns += [column] * amount.columns
        return torch.tensor(columns).T.contiguous()

    def forward(self, images: Tensor, p: float | Tensor, copies: int = 1) -> Tensor:
        """Return the augmented images; twice differentiable with respect to the images.

        Draws from the default generator of the device, without waiting for the device.

        Args:
            images: [batch, 1 or 3, height, width], float, -1..1; half precision is computed in float32.
            p: Probability, 0..1, a number or a tensor of one element; the number 0 returns the images as they are.
            copies: The batch is so many parts of equal length; image i of every part is changed in the same way.
        """
        if not isinstance(p, Tensor) and p == 0:
            return images
        with torch.autocast(images.device.type, enabled=False):
            x = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
            part = x[: len(x) // copies]
            amounts = {name: repeated(amount, copies) for name, amount in self._draw(part, p).items()}
            x = warp(x, self._inverse_map(x, amounts), self.geometry_filter.to(x.dtype)) if self.is_geometric else x
            x = self._recolor(x, amounts) if self.is_chromatic else x
            x = self._filter(x, amounts) if "imgfilter" in self.transforms else x
            if "noise" in self.transforms:
                x = x + repeated(torch.randn_like(part), copies) * amounts["noise"].abs()[:, :, None, None]
            if "cutout" in self.transforms:
                x = cut_out(x, repeated(self._center(part), copies), amounts["cutout"])
            return x.to(images.dtype)

    def _draw(self, images: Tensor, p: float | Tensor) -> dict[str, Tensor]:
        """Return all amounts by name, [batch, columns]; those of unused transforms are neutral."""
        factor, offset, is_whole, scale, neutral, strength, exponent = self.amount_table.to(images.dtype).unbind()
        numbers, gates = self._random_numbers(images)
        values = torch.addcmul(offset, torch.cat(numbers, dim=1), factor)
        values = torch.addcmul(values, values.frac(), is_whole, value=-1)
        probability = 1 - (1 - strength * p).pow(exponent)
        values = torch.addcmul(neutral, values, (torch.cat(gates, dim=1) < probability) * scale)
        parts = values.split([amount.columns for amount in AMOUNTS.values()], dim=1)
        return dict(zip(AMOUNTS, parts, strict=True))

    def _random_numbers(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return a random number for each column and one for its gate, as lists of [batch, columns]; 0 where unused.

        Each number is drawn before its gate; consecutive draws from one distribution are made at once (`random_runs`). Compiled
        code, whose random numbers differ anyway, makes all draws from one distribution at once.
        """
        batch, zero = len(images), images.new_zeros([len(images), 1])
        draw = {"uniform": torch.rand, "normal": torch.randn, "certain": torch.ones}
        found: dict[tuple[str, bool], Tensor] = {}
        for distribution, wanted, columns in self.compiled_runs if torch.compiler.is_compiling() else self.runs:
            sizes = [batch * count for count in columns]
            parts = draw[distribution](sum(sizes), dtype=images.dtype, device=images.device).split(sizes)
            found |= zip(wanted, (part.view(batch, -1) for part in parts), strict=True)
        numbers, gates = (
            [found.get((name, is_gate), zero).expand(-1, amount.columns) for name, amount in AMOUNTS.items()]
            for is_gate in (False, True)
        )
        return numbers, gates

    def _inverse_map(self, images: Tensor, amounts: dict[str, Tensor]) -> Affine:
        """Return the map from output to input pixels: every transform is inverted, and the first one acts last."""
        size_px = per_axis(images.shape[3], images.shape[2], images)
        return compose(
            flip=amounts["xflip"],
            turn=amounts["rotate90"],
            shift_px=(amounts["xint"] * size_px).round(),
            rotation=amounts["rotate"],
            stretch=torch.exp2(torch.addcmul(amounts["scale"], amounts["aniso"], self.stretched_axes.to(images.dtype))),
            rotation_again=amounts["rotate_again"],
            shift_again_px=amounts["xfrac"] * size_px,
        )

    def _recolor(self, images: Tensor, amounts: dict[str, Tensor]) -> Tensor:
        luma_gain = torch.exp2(amounts["contrast"]) * amounts["lumaflip"]
        chroma_gain = torch.exp2(amounts["contrast"] + amounts["saturation"])
        return recolor(images, amounts["brightness"], luma_gain, chroma_gain, amounts["hue"])

    def _filter(self, images: Tensor, amounts: dict[str, Tensor]) -> Tensor:
        bands = len(BAND_POWER)
        gains = torch.ones_like(images[:, 0, 0, :1])
        band_power = self.band_power.to(images.dtype)
        for band in range(bands):  # each change of a band preserves the expected power of the image
            change = torch.exp2(amounts[f"band{band}"])
            changes = torch.cat([change if i == band else torch.ones_like(change) for i in range(bands)], dim=1)
            gains = gains * changes * (changes.square() * band_power).sum(dim=1, keepdim=True).rsqrt()
        return filter_bands(images, gains, self.bank.to(images.dtype))

    def _center(self, images: Tensor) -> Tensor:
        """Return the centres of the rectangles to cut out, as fractions of width and height, [batch, 2]."""
        return images.new_empty([len(images), 2]).uniform_()


def repeated(x: Tensor, copies: int) -> Tensor:
    """The tensor so many times along its first dimension."""
    return x if copies == 1 else torch.cat([x] * copies)


def random_runs(
    names: Collection[str], by_distribution: bool = False
) -> list[tuple[str, list[tuple[str, bool]], list[int]]]:
    """Return the order of random draws: for each amount in use its numbers, then one for its gate; or sorted by distribution.

    Consecutive draws from one distribution make one run: the distribution, (amount, is it the gate) of each draw, and the
    numbers per image of each.
    """
    draws = [(name, is_gate) for name in AMOUNTS if name in names for is_gate in (False, True)]
    if by_distribution:
        draws.sort(key=distribution_of)
    runs = groupby(draws, distribution_of)
    listed = [(name, list(run)) for name, run in runs]
    return [(name, run, [1 if is_gate else AMOUNTS[of].columns for of, is_gate in run]) for name, run in listed]


def distribution_of(draw: tuple[str, bool]) -> str:
    """Return what a number of an amount, or that of its gate, is made from: uniform, normal or certain."""
    distribution = "uniform" if draw[1] else AMOUNTS[draw[0]].distribution
    return distribution if distribution in ("normal", "certain") else "uniform"
