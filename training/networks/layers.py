"""Equalised linear and convolution layers: weights are scaled at run time so that all layers learn at the same rate."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.resample import conv2d_resample
from torch_utils.ops.upfirdn2d import setup_filter

RESAMPLE_TAPS = [1, 3, 3, 1]  # the filter of every change of resolution
ACTIVATION_GAIN = {"linear": 1.0, "lrelu": math.sqrt(2)}
FLOAT16_CLAMP = 256.0  # as in the published models; the largest float16 is 65504


def output_bound(clamp: float | None, dtype: torch.dtype) -> float | None:
    """The bound of a layer's output, None = unbounded; float16 always has one, since it overflows."""
    return FLOAT16_CLAMP if clamp is None and dtype == torch.float16 else clamp


class EqualizedLinear(nn.Module):
    """Linear layer with an activation; its weight is used as `weight * lr_mult / sqrt(in_features)`."""

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
        gain = ACTIVATION_GAIN[self.activation]  # positive, so it commutes with the activation
        weight, bias = scaled([self.weight, self.bias], [self.weight_gain * gain, self.bias_gain * gain])
        x = torch.addmm(bias.to(x.dtype), x, weight.to(x.dtype).t())
        return bias_act(x, act=self.activation, gain=1, inplace=True)


class EqualizedConv2d(nn.Module):
    """Convolution with bias and activation; its weight is used as `weight / sqrt(in_channels * kernel^2)`.

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
        gain: float = 1.0,  # factor on the output and its bound
    ) -> None:
        super().__init__()
        self.activation = activation
        self.down = down
        self.clamp = clamp
        self.gain = gain
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        taps = setup_filter(RESAMPLE_TAPS) if down > 1 else None
        self.register_buffer("resample_filter", taps, persistent=False)

    def forward(self, x: Tensor, weight_and_bias: tuple[Tensor, Tensor | None] | None = None) -> Tensor:
        """[batch, in, height, width] to [batch, out, height / down, width / down], computed in the dtype of x.

        `weight_and_bias` are those of `scaled_convolutions`; None = compute them for this layer.
        """
        weight, bias = weight_and_bias or scaled_convolutions([self])[0]
        clamp = output_bound(self.clamp, x.dtype) if self.activation != "linear" else self.clamp
        x = conv2d_resample(
            x,
            weight.to(x.dtype),
            self.resample_filter,
            down=self.down,
            padding=weight.shape[-1] // 2,
            flip_filter=True,  # the filter is symmetric
            bias=None if bias is None else bias.to(x.dtype),
        )
        clamp = None if clamp is None else clamp * self.gain
        return bias_act(x, act=self.activation, gain=1, clamp=clamp, inplace=True)


def scaled_convolutions(layers: Sequence[EqualizedConv2d]) -> list[tuple[Tensor, Tensor | None]]:
    """The weight and bias of each layer times the gains of weight, activation and output, in one operation for all.

    Leaky ReLU commutes with a positive factor, so its gain needs no separate operation.
    """
    parameters, factors = [], []
    for layer in layers:
        gain = ACTIVATION_GAIN[layer.activation] * layer.gain
        parameters.append(layer.weight)
        factors.append(layer.weight_gain * gain)
        if layer.bias is not None:
            parameters.append(layer.bias)
            factors.append(gain)
    found = iter(scaled(parameters, factors))
    return [(next(found), None if layer.bias is None else next(found)) for layer in layers]


def scaled(tensors: Sequence[Tensor], factors: Sequence[float]) -> tuple[Tensor, ...]:
    """Each tensor times its factor, differentiable any number of times; one operation forward and one backward."""
    if torch.compiler.is_compiling():  # a cast that follows fuses with its product
        return tuple(x * factor for x, factor in zip(tensors, factors, strict=True))
    return _Scaled.apply(list(factors), *tensors)


class _Scaled(Function):
    @staticmethod
    def forward(ctx: Any, factors: list[float], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.factors = factors
        ctx.set_materialize_grads(False)  # the optimizer skips parameters without a gradient
        results = torch._foreach_mul(tensors, factors)
        frozen = [result for result, needs in zip(results, ctx.needs_input_grad[1:], strict=True) if not needs]
        ctx.mark_non_differentiable(*frozen)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        present = [(grad, factor) for grad, factor in zip(grads, ctx.factors, strict=True) if grad is not None]
        found = iter(scaled([grad for grad, _ in present], [factor for _, factor in present]))
        return None, *(None if grad is None else next(found) for grad in grads)
