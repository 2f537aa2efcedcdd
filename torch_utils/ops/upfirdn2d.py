"""Up-sampling, filtering and down-sampling of images with small fixed filters.

All are one operation: insert zeros (up), pad or crop, convolve (fir), keep every n-th pixel (dn).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_utils.ops.depthwise import depthwise
from torch_utils.ops.kernels import find_kernel

Padding = int | Sequence[int]  # p, [x, y] or [x0, x1, y0, y1]; negative values crop
Factor = int | Sequence[int]  # n or [x, y]

_SEPARABLE_TAPS = 8  # from so many on, two 1-D passes cost less than one 2-D pass


def setup_filter(taps: Sequence[float] | Sequence[Sequence[float]]) -> Tensor:
    """Return a filter whose taps sum to 1, so that a constant image keeps its value; float32, on the CPU.

    A matrix of taps gives [height, width]. A list of taps is used along both axes: [taps, taps], or [taps] from 8 taps on.
    """
    f = torch.as_tensor(taps, dtype=torch.float32, device="cpu")
    if f.ndim == 1 and len(f) < _SEPARABLE_TAPS:
        f = f.outer(f)
    return f / f.sum()


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: Factor = 1,
    down: Factor = 1,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
) -> Tensor:
    """Up-sample by inserting zeros, pad, convolve with a filter and down-sample by keeping every n-th pixel.

    Differentiable any number of times with respect to `x`; no gradient reaches the filter.

    Args:
        x: Images, [batch, channels, height, width], any float dtype.
        f: From `setup_filter`: [height, width], or [taps] to filter along both axes. None = the identity.
        up: Zeros follow each pixel up to this factor: n or [x, y].
        down: Every n-th pixel is kept, starting with the first: n or [x, y].
        padding: Zeros added around the up-sampled image: n, [x, y] or [x0, x1, y0, y1]; negative crops.
        flip_filter: False = convolution, True = correlation.
        gain: Factor on the result.

    Returns:
        [batch, channels, out height, out width], out = (in * up + padding - taps) // down + 1 along each axis.

    Raises:
        ValueError: Wrong ranks or dtypes, factors below 1, or a padding that leaves no pixel.
    """
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"x is {x.dtype} of shape {tuple(x.shape)}; float [batch, channels, height, width] is needed")
    if f is not None and (f.ndim not in (1, 2) or f.numel() == 0 or not f.is_floating_point()):
        raise ValueError(f"f is {f.dtype} of shape {tuple(f.shape)}; make it with setup_filter")
    up_x, up_y = parse_factor("up", up)
    down_x, down_y = parse_factor("down", down)
    x0, x1, y0, y1 = parse_padding(padding)
    taps_x, taps_y = filter_size(f)
    height, width = x.shape[2:]
    if width * up_x + x0 + x1 < taps_x or height * up_y + y0 + y1 < taps_y:
        raise ValueError(f"padding={padding} leaves nothing of a {width}x{height} image for a {taps_x}x{taps_y} filter")
    function = find_kernel("upfirdn2d", x) or upfirdn2d_reference
    return function(x, f, (up_x, up_y), (down_x, down_y), (x0, x1, y0, y1), flip_filter, gain)


def upsample2d(x: Tensor, f: Tensor | None) -> Tensor:
    """Enlarge images, [batch, channels, height, width], by 2; a constant image keeps its value."""
    return upfirdn2d(x, f, up=2, padding=upsample_padding(f, (2, 2)), gain=4)


def downsample2d(x: Tensor, f: Tensor | None, padding: Padding = 0, flip_filter: bool = False) -> Tensor:
    """Shrink images, [batch, channels, height, width], by 2; `padding` counts in input pixels."""
    around = add_padding(padding, downsample_padding(f, (2, 2)))
    return upfirdn2d(x, f, down=2, padding=around, flip_filter=flip_filter)


def filter_size(f: Tensor | None) -> tuple[int, int]:
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def upsample_padding(f: Tensor | None, up: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the padding (x0, x1, y0, y1) that makes up-sampling by (x, y) give `up` times the size, centred."""
    (taps_x, taps_y), (up_x, up_y) = filter_size(f), up
    return (taps_x + up_x - 1) // 2, (taps_x - up_x) // 2, (taps_y + up_y - 1) // 2, (taps_y - up_y) // 2


def downsample_padding(f: Tensor | None, down: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the padding (x0, x1, y0, y1) that makes down-sampling by (x, y) give the size over `down`, centred."""
    (taps_x, taps_y), (down_x, down_y) = filter_size(f), down
    return (taps_x - down_x + 1) // 2, (taps_x - down_x) // 2, (taps_y - down_y + 1) // 2, (taps_y - down_y) // 2


def add_padding(a: Padding, b: Padding) -> tuple[int, int, int, int]:
    """Return the sum of two paddings as (x0, x1, y0, y1)."""
    (ax0, ax1, ay0, ay1), (bx0, bx1, by0, by1) = parse_padding(a), parse_padding(b)
    return ax0 + bx0, ax1 + bx1, ay0 + by0, ay1 + by1


def parse_factor(name: str, value: Factor) -> tuple[int, int]:
    """Return n or [x, y] as (x, y); ValueError unless both are integers of at least 1."""
    pair = tuple(value) if isinstance(value, Sequence) else (value,) * 2
    if len(pair) != 2 or not all(isinstance(n, int) and n >= 1 for n in pair):
        raise ValueError(f"{name}={value!r} must be an integer of at least 1, or two, [x, y]")
    return pair[0], pair[1]


def parse_padding(value: Padding) -> tuple[int, int, int, int]:
    """Return n, [x, y] or [x0, x1, y0, y1] as (x0, x1, y0, y1)."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * 4
    if len(values) == 2:
        values = (values[0], values[0], values[1], values[1])
    if len(values) != 4 or not all(isinstance(n, int) for n in values):
        raise ValueError(f"padding={value!r} must be an integer, [x, y] or [x0, x1, y0, y1]")
    return values[0], values[1], values[2], values[3]


def upfirdn2d_reference(
    x: Tensor,
    f: Tensor | None,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
) -> Tensor:
    """Return `upfirdn2d` of checked arguments in plain PyTorch: the specification. Pairs are (x, y)."""
    f = torch.ones([1, 1], dtype=x.dtype, device=x.device) if f is None else f.detach().to(x.dtype)
    scaled = f if gain == 1 else f * gain
    if f.ndim == 2:
        return _resample(x, scaled, up, down, padding, flip_filter)
    x0, x1, y0, y1 = padding
    x = _resample(x, scaled[:, None], (1, up[1]), (1, down[1]), (0, 0, y0, y1), flip_filter)
    return _resample(x, f[None, :], (up[0], 1), (down[0], 1), (x0, x1, 0, 0), flip_filter)


def _resample(
    x: Tensor,
    f: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
) -> Tensor:
    """Apply one filter matrix; the zeros of up-sampling are neither stored nor multiplied."""
    if up == (1, 1):
        x0, x1, y0, y1 = padding
        inner = max(0, min(y0, y1)), max(0, min(x0, x1))  # the convolution adds what both sides share
        x = _pad_or_crop(x, (x0 - inner[1], x1 - inner[1], y0 - inner[0], y1 - inner[0]))
        return depthwise(x, f if flip_filter else f.flip([0, 1]), (down[1], down[0]), inner)
    # A transposed convolution returns every pixel the filter reaches, short of up - 1 trailing zeros: crop it.
    f = f.flip([0, 1]) if flip_filter else f
    (taps_x, taps_y), (x0, x1, y0, y1) = filter_size(f), padding
    crop = (taps_x - 1 - x0, taps_x - up[0] - x1, taps_y - 1 - y0, taps_y - up[1] - y1)
    inner = max(0, min(crop[2:])), max(0, min(crop[:2]))
    x = depthwise(x, f, (up[1], up[0]), inner, transposed=True)
    x = _pad_or_crop(x, (inner[1] - crop[0], inner[1] - crop[1], inner[0] - crop[2], inner[0] - crop[3]))
    return x if down == (1, 1) else x[:, :, :: down[1], :: down[0]]


def _pad_or_crop(x: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """Add zeros where the padding is positive, then crop where it is negative (F.pad refuses to crop padding again)."""
    if any(side > 0 for side in padding):
        x = F.pad(x, [max(side, 0) for side in padding])
    x0, x1, y0, y1 = (max(-side, 0) for side in padding)
    return x[:, :, y0 : x.shape[2] - y1, x0 : x.shape[3] - x1]
