"""Convolution combined with up-sampling or down-sampling of its input or output."""

import torch.nn.functional as F
from torch import Tensor

from torch_utils.ops.upfirdn2d import Padding, add_padding, downsample_padding, upfirdn2d, upsample_padding


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    f: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
    bias: Tensor | None = None,
) -> Tensor:
    """Up-sample, convolve and down-sample: the filter `f` smooths after inserting and before dropping pixels.

    Equal to upfirdn2d(up) -> conv2d -> upfirdn2d(down), computed in the order that costs least. Differentiable any
    number of times with respect to `x` and `w`. With `up` and `down` 1 it is a plain convolution and `f` has no effect.

    Args:
        x: Images, [batch, in, height, width].
        w: Weight, [out, in / groups, kernel height, kernel width].
        f: From `upfirdn2d.setup_filter`. None = the identity.
        up, down: Integer factors that enlarge the input and shrink the output.
        padding: Zeros around the up-sampled image: n, [x, y] or [x0, x1, y0, y1]; kernel // 2 keeps the size.
        groups: Split input and output channels into this many independent convolutions.
        flip_weight: True = correlation, as in torch.nn.functional.conv2d; False = convolution.
        flip_filter: False = `f` convolves, True = it correlates.
        bias: Added to each output channel, [out], by the convolution itself where nothing follows it.

    Returns:
        [batch, out, height * up / down, width * up / down] with the padding that keeps the size.
    """
    p = add_padding(padding, upsample_padding(f, (up, up)) if up > 1 else 0)
    p = add_padding(p, downsample_padding(f, (down, down)) if down > 1 else 0)
    w = w if flip_weight or w.shape[2:] == (1, 1) else w.flip([2, 3])
    if up > 1:
        x = _conv2d_up(x, w, f, up, p, groups, flip_filter)
        x = upfirdn2d(x, f, down=down, flip_filter=flip_filter) if down > 1 else x
        return x if bias is None else x + bias[:, None, None]
    if down > 1 and w.shape[2:] == (1, 1):  # filter only the pixels that stay
        x = upfirdn2d(x, f, down=down, padding=p, flip_filter=flip_filter)
        return F.conv2d(x, w, bias, groups=groups)
    if down > 1:
        x = upfirdn2d(x, f, padding=p, flip_filter=flip_filter)
        return F.conv2d(x, w, bias, stride=down, groups=groups)
    x0, x1, y0, y1 = p
    if x0 == x1 >= 0 and y0 == y1 >= 0:
        return F.conv2d(x, w, bias, padding=(y0, x0), groups=groups)
    return F.conv2d(upfirdn2d(x, None, padding=p), w, bias, groups=groups)


def _conv2d_up(
    x: Tensor, w: Tensor, f: Tensor | None, up: int, padding: tuple[int, int, int, int], groups: int, flip_filter: bool
) -> Tensor:
    """Convolve before filtering: filter and kernel commute, and so neither ever meets an inserted zero."""
    gain = up**2
    out_channels, in_per_group, kernel_y, kernel_x = w.shape
    if kernel_x == kernel_y == 1:
        x = F.conv2d(x, w, groups=groups)
        return upfirdn2d(x, f, up=up, padding=padding, flip_filter=flip_filter, gain=gain)
    w = w.reshape(groups, out_channels // groups, in_per_group, kernel_y, kernel_x).transpose(1, 2)
    w = w.reshape(groups * in_per_group, out_channels // groups, kernel_y, kernel_x).flip([2, 3])
    # The transposed convolution reaches kernel - 1 pixels out; what the padding does not ask for is cropped again.
    x0, x1, y0, y1 = add_padding(padding, [1 - kernel_x, up - kernel_x, 1 - kernel_y, up - kernel_y])
    crop_x, crop_y = max(0, min(-x0, -x1)), max(0, min(-y0, -y1))
    x = F.conv_transpose2d(x, w, stride=up, padding=(crop_y, crop_x), groups=groups)
    rest = add_padding([x0, x1, y0, y1], [crop_x, crop_y])
    return upfirdn2d(x, f, padding=rest, flip_filter=flip_filter, gain=gain)
