"""The augmentation pipe: random image transforms that hide from the generator, applied to all D sees.

Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data" (ADA), appendix B.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor, nn

from torch_utils.ops.upfirdn2d import setup_filter
from training.image_transforms import Affine, cut_out, filter_bands, identity_map, recolor, warp

# Symlets, the least asymmetric of the compactly supported orthogonal wavelets: low-pass filters of 4 and 12 taps.
SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # expected share of a natural image's power, lowest band first

SHIFT_INT_MAX = 0.125  # share of the image size, uniform in both directions
SCALE_STD = 0.2  # log2
ANISO_STD = 0.2  # log2
SHIFT_STD = 0.125  # share of the image size
BRIGHTNESS_STD = 0.2  # of the range -1..1
CONTRAST_STD = 0.5  # log2
SATURATION_STD = 1.0  # log2
BAND_STD = 1.0  # log2
NOISE_STD = 0.1  # of the range -1..1
CUTOUT_SIZE = 0.5  # share of the image size


@dataclass(frozen=True)
class Transforms:
    """How often each transform happens: its probability as a share of the pipe's p, 0..1. 0 = it is left out."""

    xflip: float = 0.0
    rotate90: float = 0.0
    xint: float = 0.0  # shift by whole pixels
    scale: float = 0.0
    rotate: float = 0.0
    aniso: float = 0.0  # stretch along one axis, shrink along the other
    xfrac: float = 0.0  # shift by fractions of a pixel
    brightness: float = 0.0
    contrast: float = 0.0
    lumaflip: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0
    imgfilter: float = 0.0
    noise: float = 0.0
    cutout: float = 0.0

    @property
    def geometric(self) -> bool:
        """True if pixels move."""
        return any([self.xflip, self.rotate90, self.xint, self.scale, self.rotate, self.aniso, self.xfrac])

    @property
    def chromatic(self) -> bool:
        """True if colours change."""
        return any([self.brightness, self.contrast, self.lumaflip, self.hue, self.saturation])


_BLIT = ("xflip", "rotate90", "xint")
_GEOM = ("scale", "rotate", "aniso", "xfrac")
_COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")


def _use(*names: str) -> Transforms:
    return Transforms(**dict.fromkeys(names, 1.0))


PIPES: dict[str, Transforms] = {
    "blit": _use(*_BLIT),
    "geom": _use(*_GEOM),
    "color": _use(*_COLOR),
    "filter": _use("imgfilter"),
    "noise": _use("noise"),
    "cutout": _use("cutout"),
    "bg": _use(*_BLIT, *_GEOM),
    "bgc": _use(*_BLIT, *_GEOM, *_COLOR),
    "bgcf": _use(*_BLIT, *_GEOM, *_COLOR, "imgfilter"),
    "bgcfn": _use(*_BLIT, *_GEOM, *_COLOR, "imgfilter", "noise"),
    "bgcfnc": _use(*_BLIT, *_GEOM, *_COLOR, "imgfilter", "noise", "cutout"),
}


def band_filters() -> np.ndarray:
    """Return filters that split a signal into four octaves and add up to the identity, lowest first, [4, 43]."""
    taps = np.array(SYM2)
    low = np.convolve(taps, taps[::-1]) / 2  # half-band and without delay: low + high is the identity
    high = low * (-1.0) ** np.arange(-3, 4)
    bands = [np.ones(1)]
    for _ in range(3):  # the bands so far, an octave lower, below a new highest one
        bands = [np.convolve(np.kron(band, [1, 0])[:-1], low) for band in bands]
        bands.append(np.pad(high, (len(bands[0]) - len(high)) // 2))
    return np.stack(bands)


class AugmentPipe(nn.Module):
    """Changes each image by the transforms of a pipe, each with probability p and by a random amount."""

    geometry_filter: Tensor
    bank: Tensor
    band_power: Tensor

    def __init__(self, pipe: str | Transforms = "bgc") -> None:
        """Choose a pipe from `PIPES` by name, or give the transforms; ValueError on an unknown name."""
        super().__init__()
        if isinstance(pipe, str):
            if pipe not in PIPES:
                raise ValueError(f"augmentation pipe {pipe!r} is not known; use one of {', '.join(PIPES)}")
            pipe = PIPES[pipe]
        self.transforms = pipe
        self.register_buffer("geometry_filter", setup_filter(SYM6), persistent=False)
        self.register_buffer("bank", torch.from_numpy(band_filters()).float(), persistent=False)
        self.register_buffer("band_power", torch.tensor(BAND_POWER), persistent=False)

    def forward(self, images: Tensor, p: float | Tensor, percentile: float | None = None) -> Tensor:
        """Return the images, changed; differentiable twice with respect to them.

        Takes its randomness from the default generator of the images' device and never waits for that device.

        Args:
            images: [batch, channels, height, width], float, -1..1; half precision is computed in float32.
            p: Probability, 0..1; a tensor of one element stays on the device. The number 0 returns the images as is.
            percentile: Draw every amount at this percentile, above 0, below 1, for tests. None = at random.

        Raises:
            ValueError: p or percentile out of range, or colour transforms on other than 1 or 3 channels.
        """
        self._check(images, p, percentile)
        if not isinstance(p, Tensor) and p == 0:
            return images
        with torch.autocast(images.device.type, enabled=False):
            x = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
            draw = _Draws(x, p, percentile)
            x = self._move(x, draw) if self.transforms.geometric else x
            x = self._recolor(x, draw) if self.transforms.chromatic else x
            x = self._filter(x, draw) if self.transforms.imgfilter else x
            x = self._add_noise(x, draw) if self.transforms.noise else x
            x = self._cut_out(x, draw) if self.transforms.cutout else x
            return x.to(images.dtype)

    def _check(self, images: Tensor, p: float | Tensor, percentile: float | None) -> None:
        if images.ndim != 4 or not images.is_floating_point():
            raise ValueError(
                f"images are {images.dtype} of shape {tuple(images.shape)}; "
                "float [batch, channels, height, width] is needed"
            )
        if isinstance(p, Tensor) and p.numel() != 1:
            raise ValueError(f"p has shape {tuple(p.shape)}; one probability for all images is needed")
        if not isinstance(p, Tensor) and not 0 <= p <= 1:
            raise ValueError(f"p={p} must lie in 0..1")
        if percentile is not None and not 0 < percentile < 1:
            raise ValueError(f"percentile={percentile} must lie between 0 and 1")
        if self.transforms.chromatic and images.shape[1] not in (1, 3):
            raise ValueError(f"images have {images.shape[1]} channels; colour transforms need 1 or 3")

    def _move(self, images: Tensor, draw: "_Draws") -> Tensor:
        return warp(images, self._inverse_map(images, draw), self.geometry_filter.to(images.dtype))

    def _inverse_map(self, images: Tensor, draw: "_Draws") -> Affine:
        """From output to input pixels, so every transform enters inverted and the first of them acts last."""
        use = self.transforms
        size_px = torch.cat([images.new_full([1], size) for size in (images.shape[3], images.shape[2])])
        inverse = identity_map(images)
        if use.xflip:
            flip = 1 - 2 * draw.gated(draw.choice(2), use.xflip)
            inverse = inverse.of_scaled(torch.cat([flip, torch.ones_like(flip)], dim=1))
        if use.rotate90:
            inverse = inverse.of_rotated(math.pi / 2 * draw.gated(draw.choice(4), use.rotate90))
        if use.xint:
            shift = draw.gated(draw.uniform(2) * SHIFT_INT_MAX, use.xint)
            inverse = inverse.of_shifted(-(shift * size_px).round())
        if use.scale:
            inverse = inverse.of_scaled(torch.exp2(-draw.gated(draw.normal() * SCALE_STD, use.scale)))
        # Rotations before and after the stretch, each rarer, so that an image escapes both with probability 1 - p.
        if use.rotate:
            inverse = inverse.of_rotated(draw.half_gated(draw.uniform() * math.pi, use.rotate))
        if use.aniso:
            stretch = torch.exp2(draw.gated(draw.normal() * ANISO_STD, use.aniso))
            inverse = inverse.of_scaled(torch.cat([1 / stretch, stretch], dim=1))
        if use.rotate and draw.percentile is None:
            inverse = inverse.of_rotated(draw.half_gated(draw.uniform() * math.pi, use.rotate))
        if use.xfrac:
            inverse = inverse.of_shifted(-draw.gated(draw.normal(2) * SHIFT_STD, use.xfrac) * size_px)
        return inverse

    def _recolor(self, images: Tensor, draw: "_Draws") -> Tensor:
        use = self.transforms
        brightness = draw.gated(draw.normal() * BRIGHTNESS_STD, use.brightness)
        contrast = torch.exp2(draw.gated(draw.normal() * CONTRAST_STD, use.contrast))
        sign = 1 - 2 * draw.gated(draw.choice(2), use.lumaflip)
        hue = draw.gated(draw.uniform() * math.pi, use.hue)
        saturation = torch.exp2(draw.gated(draw.normal() * SATURATION_STD, use.saturation))
        return recolor(images, brightness, contrast * sign, contrast * saturation, hue)

    def _filter(self, images: Tensor, draw: "_Draws") -> Tensor:
        bands = len(BAND_POWER)
        gains = torch.ones_like(images[:, 0, 0, :1])
        band_power = self.band_power.to(images.dtype)
        for band in range(bands):  # each change of a band keeps the expected power of the whole
            change = torch.exp2(draw.gated(draw.normal() * BAND_STD, self.transforms.imgfilter))
            changes = torch.cat([change if i == band else torch.ones_like(change) for i in range(bands)], dim=1)
            gains = gains * changes * (changes.square() * band_power).sum(dim=1, keepdim=True).rsqrt()
        return filter_bands(images, gains, self.bank.to(images.dtype))

    def _add_noise(self, images: Tensor, draw: "_Draws") -> Tensor:
        sigma = draw.gated(draw.half_normal() * NOISE_STD, self.transforms.noise)
        return images + torch.randn_like(images) * sigma[:, :, None, None]

    def _cut_out(self, images: Tensor, draw: "_Draws") -> Tensor:
        size = draw.gated(torch.full_like(draw.uniform(), CUTOUT_SIZE), self.transforms.cutout)
        return cut_out(images, (draw.uniform(2) + 1) / 2, size)


class _Draws:
    """Amounts for one batch, [batch, count], at random or at a percentile of their distribution."""

    def __init__(self, images: Tensor, p: float | Tensor, percentile: float | None) -> None:
        self.percentile = percentile
        self._images = images
        self._p = p.to(images.dtype).reshape([]) if isinstance(p, Tensor) else images.new_full([], p)

    def uniform(self, count: int = 1) -> Tensor:
        """Uniform in -1..1."""
        return self._unit(count) * 2 - 1

    def choice(self, options: int) -> Tensor:
        """One of 0 .. options - 1."""
        return (self._unit(1) * options).floor()

    def normal(self, count: int = 1) -> Tensor:
        """Standard normal."""
        if self.percentile is None:
            return torch.randn([len(self._images), count], dtype=self._images.dtype, device=self._images.device)
        return self._full(count, _erfinv(2 * self.percentile - 1))

    def half_normal(self) -> Tensor:
        """Magnitude of a standard normal."""
        return self.normal().abs() if self.percentile is None else self._full(1, _erfinv(self.percentile))

    def gated(self, amount: Tensor, strength: float) -> Tensor:
        """Keep the amount with probability p * strength, one decision an image; 0 otherwise."""
        return self._gate(amount, self._p * strength)

    def half_gated(self, amount: Tensor, strength: float) -> Tensor:
        """Keep the amount so often that one of two such amounts is kept with probability p * strength."""
        return self._gate(amount, 1 - (1 - self._p * strength).clamp(min=0).sqrt())

    def _gate(self, amount: Tensor, probability: Tensor) -> Tensor:
        return torch.where(torch.rand_like(amount[:, :1]) < probability, amount, 0)

    def _unit(self, count: int) -> Tensor:
        if self.percentile is not None:
            return self._full(count, self.percentile)
        return torch.rand([len(self._images), count], dtype=self._images.dtype, device=self._images.device)

    def _full(self, count: int, value: float) -> Tensor:
        return self._images.new_full([len(self._images), count], value)


def _erfinv(x: float) -> float:
    """The recorded percentiles of a normal lack the factor sqrt(2), and so this inverse error function has to do."""
    return NormalDist().inv_cdf((x + 1) / 2) / math.sqrt(2)
