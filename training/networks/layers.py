"""Equalised linear and convolution layers: weights are scaled at run time so that every layer learns at one pace."""

import math

import torch
from torch import Tensor, nn

from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.resample import conv2d_resample
from torch_utils.ops.upfirdn2d import setup_filter

RESAMPLE_TAPS = [1, 3, 3, 1]  # the filter of every change of resolution
ACTIVATION_GAIN = {"linear": 1.0, "lrelu": math.sqrt(2)}
FLOAT16_CLAMP = 256.0  # that of the published models, far from float16's largest number, 65504


def output_bound(clamp: float | None, dtype: torch.dtype) -> float | None:
    """The bound of a layer's output, None = unbounded; float16 overflows and so always has one."""
    return FLOAT16_CLAMP if clamp is None and dtype == torch.float16 else clamp


class EqualizedLinear(nn.Module):
    """Linear layer with fused bias and activation; its weight is used as `weight * lr_mult / sqrt(in_features)`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str = "linear",  # linear, or lrelu with gain sqrt(2)
        lr_mult: float = 1.0,  # learning-rate multiplier
        bias_init: float = 0.0,  # effective bias at the start
    ) -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_mult)
        self.bias = nn.Parameter(torch.full([out_features], bias_init / lr_mult))
        self.weight_gain = lr_mult / math.sqrt(in_features)
        self.bias_gain = lr_mult

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in] to [batch, out]."""
        weight = self.weight.to(x.dtype) * self.weight_gain
        bias = self.bias.to(x.dtype)
        if self.bias_gain != 1:
            bias = bias * self.bias_gain
        if self.activation == "linear":
            return torch.addmm(bias, x, weight.t())
        return bias_act(x.matmul(weight.t()), bias, act=self.activation)


class EqualizedConv2d(nn.Module):
    """Convolution with fused bias and activation; its weight is used as `weight / sqrt(in_channels * kernel^2)`.

    Down-sampling by 2 filters first, then convolves with a stride.
    """

    resample_filter: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,  # px, odd
        activation: str = "linear",  # linear, or lrelu with gain sqrt(2)
        bias: bool = True,
        down: int = 1,  # 2 halves the resolution
        clamp: float | None = None,  # bound of the output before `gain`; None = unbounded
    ) -> None:
        super().__init__()
        self.activation = activation
        self.down = down
        self.clamp = clamp
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        taps = setup_filter(RESAMPLE_TAPS) if down > 1 else None
        self.register_buffer("resample_filter", taps, persistent=False)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """[batch, in, height, width] to [batch, out, height / down, width / down], the output and its bound times gain.

        Computed in the dtype of x.
        """
        clamp = output_bound(self.clamp, x.dtype) if self.activation != "linear" else self.clamp
        x = conv2d_resample(
            x,
            (self.weight * self.weight_gain).to(x.dtype),
            self.resample_filter,
            down=self.down,
            padding=self.weight.shape[-1] // 2,
        )
        return bias_act(
            x,
            self.bias,
            act=self.activation,
            gain=ACTIVATION_GAIN[self.activation] * gain,
            clamp=None if clamp is None else clamp * gain,
        )
