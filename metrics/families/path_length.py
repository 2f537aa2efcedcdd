"""The perceptual path length: how much images change along short steps through W."""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metrics.detectors import BuildContext, Detector, DetectorKind
from metrics.images import EPSILON, RealImages, Sample
from metrics.metric import Family, Inputs, Measurement, Metric, Setting
from metrics.networks.lpips import SMALLEST_PX, Lpips, read_channel_weights
from metrics.networks.vgg16 import is_proven, load_vgg16, read_vgg16
from metrics.weights.published import LPIPS, VGG16, require

DETECTOR = "vgg16_lpips"

_LOWEST, _HIGHEST = 1, 99  # percentiles
_LARGEST_PX = 256  # that VGG16 is to see
_PAIRS_AT_ONCE = 8  # at 256 px their embeddings and what leads to them take a gigabyte


def build_path_length(context: BuildContext) -> Detector:
    vgg16, channels = require(VGG16, context.weights), require(LPIPS, context.weights)
    channel_weights = [weights.to(context.device) for weights in read_channel_weights(channels.path)]
    lpips = Lpips(load_vgg16(vgg16.path).features.to(context.device), channel_weights)
    return Detector(
        DETECTOR,
        partial(squared_speeds, lpips),
        dim=1,
        digest=f"{vgg16.sha256}+{channels.sha256}",
        resize=f"average_by_size_over_{_LARGEST_PX}",
        is_published=is_proven(vgg16) and channels.is_published,
    )


def squared_speeds(lpips: Lpips, pairs: Tensor) -> Tensor:
    """Return LPIPS distances over the squared step, float32 [n, 1], of pairs, float 0..255, [n, 2, 1 or 3, height, width]."""
    distances = [lpips.distance(*_shrink(some).unbind(1)) for some in pairs.split(_PAIRS_AT_ONCE)]
    return (torch.cat(distances) / EPSILON**2).float().unsqueeze(1)


def measure_path_length(inputs: Inputs) -> Measurement:
    """Return the mean over the pairs without the extreme ones."""
    mean, std = trimmed(inputs.fake.rows)
    percentiles = {"lowest_percentile": _LOWEST, "highest_percentile": _HIGHEST}
    how: dict[str, Setting] = {"epsilon": EPSILON, "space": "w", "sampling": "end", "crop": False, **percentiles}
    return Measurement(mean, details={"std": std}, settings=how)


def trimmed(values: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation (ddof 0), float64, of the values from the 1st to the 99th percentile.

    Where a percentile lies between two values it is the outer one; both percentiles belong to what is averaged.
    """
    array = values.flatten().double().numpy()
    lowest = np.percentile(array, _LOWEST, method="lower")
    highest = np.percentile(array, _HIGHEST, method="higher")
    kept = array[(lowest <= array) & (array <= highest)]
    return float(kept.mean()), float(kept.std())


def _shrink(pairs: Tensor) -> Tensor:
    """Return pairs, [n, 2, channels, height, width], with images of 512 px and more averaged to about 256 px."""
    factor = min(pairs.shape[3:]) // _LARGEST_PX
    if factor < 2:
        return pairs
    return F.avg_pool2d(pairs.flatten(0, 1), factor).unflatten(0, pairs.shape[:2])


def check_size(real: RealImages) -> None:
    """Raise ValueError unless images of the real ones' size outlast the poolings of VGG16."""
    _, height, width = real.image_shape
    if min(height, width) < SMALLEST_PX:
        raise ValueError(
            f"images of {width}x{height} px are too small for the perceptual path length; LPIPS takes at least "
            f"{SMALLEST_PX}x{SMALLEST_PX} px"
        )


_DEFINITION = (
    f"perceptual path length in W at the end points, of {{num_gen:,}} pairs of images: squared LPIPS (VGG16) speed at a step "
    f"of {EPSILON:g}, mean between percentiles {_LOWEST} and {_HIGHEST}"
)
PPL = Metric(_DEFINITION, DETECTOR, measure_path_length, check=check_size, sample=Sample.PAIRS)

FAMILIES = (Family("ppl2_{count}_wend", PPL, standard_name="ppl2_wend"),)  # of 50,000 pairs, as published

DETECTORS = {DETECTOR: DetectorKind(build_path_length, {VGG16: read_vgg16, LPIPS: read_channel_weights})}
