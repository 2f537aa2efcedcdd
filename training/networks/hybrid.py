"""Attention stages as published up to 32 or 64 px, StyleGAN2's convolutional synthesis stages above, for large images.

The layout of the paper's Styleformer-C, which combines both, is not published. Here the mapping network, the styles and the sum
of ToRGB outputs are those of Styleformer, the stages above are those of StyleGAN2 (arXiv 1912.04958, figure 2). Cost and memory
grow linearly with the pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dnnlib.dataclass_values import require, require_range
from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.resample import conv2d_resample
from torch_utils.ops.upfirdn2d import setup_filter
from training.config import DatasetSpec, GeneratorConfig
from training.networks.attention import layer_noise
from training.networks.base import StyleGenerator
from training.networks.generator import SynthesisNetwork, ToRGB, image_to_tokens, tokens_to_image, upsample
from training.networks.layers import ACTIVATION_GAIN, RESAMPLE_TAPS, EqualizedLinear, output_bound, scaled
from training.networks.modulation import EPS, bounded
from training.registry import register

Size = tuple[int, int]  # height, width, px


@dataclass(frozen=True)
class HybridConfig(GeneratorConfig):
    """Styleformer's settings for the attention stages, and the channels of the convolutional ones."""

    kind: str = field(default="hybrid", kw_only=True)
    widths: tuple[int, ...] = (512, 256, 256)  # token width of each attention stage (--g_dict)
    layers: tuple[int, ...] = (1, 2, 2)  # encoder layers of each attention stage (--num_layers)
    attention_to_px: int = 32  # longer side of the largest attention stage
    channel_base: int = 16384  # channels of a convolutional stage = base / longer side ...
    channel_max: int = 512  # ... but never more than this

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("generator", self, "attention_to_px channel_base channel_max", 1)

    def weight_settings(self) -> dict[str, object]:
        names = ("attention_to_px", "channel_base", "channel_max")
        return super().weight_settings() | {name: getattr(self, name) for name in names}

    def split(self, spec: DatasetSpec) -> tuple[list[Size], list[Size]]:
        """The sizes of the attention stages and of the convolutional ones; the first stage always attends."""
        sizes = spec.stage_sizes
        attending = [size for i, size in enumerate(sizes) if i == 0 or max(size) <= self.attention_to_px]
        return attending, list(sizes[len(attending) :])

    def fitted(self, spec: DatasetSpec) -> "HybridConfig":
        """With the default widths and layers, where there are not as many as attention stages."""
        count = len(self.split(spec)[0])
        if len(self.widths) == count:
            return self
        return replace(self, widths=HybridConfig.widths[:count], layers=HybridConfig.layers[:count])

    def check(self, spec: DatasetSpec) -> None:
        sizes = ", ".join(f"{width}x{height}" for height, width in self.split(spec)[0])
        require(
            len(self.widths) == len(self.split(spec)[0]),
            f"images of {spec.width}x{spec.height} px have {len(self.split(spec)[0])} attention stages ({sizes}) with "
            f"generator.attention_to_px={self.attention_to_px}, but {len(self.widths)} widths are set: give --g_dict and "
            f"--num_layers as many values",
        )

    def channels(self, size: Size) -> int:
        return max(min(self.channel_base // max(size), self.channel_max), 1)


class ModulatedConv2d(nn.Module):
    """3x3 convolution with modulation and demodulation, noise, bias and leaky ReLU (StyleGAN2, section 2.2).

    The style scales the input and the demodulation the output, so no weight per sample is stored.
    """

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self, w_dim: int, in_channels: int, out_channels: int, size: Size, up: int = 1, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.up, self.clamp = up, clamp
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.weight_gain = 1 / math.sqrt(in_channels * 9)
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise_const", torch.randn(1, 1, *size))
        self.register_buffer("resample_filter", setup_filter(RESAMPLE_TAPS), persistent=False)

    def forward(self, x: Tensor, w: Tensor, noise_mode: str = "random") -> Tensor:
        """[batch, in, height, width] and style vectors [batch, w_dim] to [batch, out, height * up, width * up]."""
        style = bounded(self.affine(w), x.dtype)
        (weight,) = scaled([self.weight], [self.weight_gain])
        demodulation = (style.square() @ weight.square().sum(dim=[2, 3]).T + EPS).rsqrt()
        x = x * style.to(x.dtype)[:, :, None, None]
        f = self.resample_filter if self.up > 1 else None
        x = conv2d_resample(x, weight.to(x.dtype), f, up=self.up, padding=1, flip_filter=True)
        x = x * demodulation.to(x.dtype)[:, :, None, None]
        noise = layer_noise(self.noise_const, len(x), noise_mode)
        strength = None if noise is None else self.noise_strength
        gain, clamp = ACTIVATION_GAIN["lrelu"], output_bound(self.clamp, x.dtype)
        return bias_act(x, self.bias, act="lrelu", gain=gain, clamp=clamp, noise=noise, noise_strength=strength)


class ConvStage(nn.Module):
    """Two modulated convolutions, of which the first doubles the size, and ToRGB."""

    def __init__(
        self, config: HybridConfig, size: Size, in_channels: int, out_channels: int, img_channels: int
    ) -> None:
        super().__init__()
        self.size = size
        self.conv0 = ModulatedConv2d(config.w_dim, in_channels, out_channels, size, up=2, clamp=config.clamp)
        self.conv1 = ModulatedConv2d(config.w_dim, out_channels, out_channels, size, clamp=config.clamp)
        self.to_rgb = ToRGB(config.w_dim, out_channels, img_channels)

    def forward(self, x: Tensor, ws: Sequence[Tensor], noise_mode: str) -> tuple[Tensor, Tensor]:
        """Features [batch, in, height / 2, width / 2] and three style vectors to features and colours of this size."""
        x = self.conv1(self.conv0(x, ws[0], noise_mode), ws[1], noise_mode)
        return x, tokens_to_image(self.to_rgb(image_to_tokens(x), ws[2]), self.size)


class HybridSynthesis(SynthesisNetwork):
    """Styles to image. Each layer reads one style; the ToRGB of a stage reads that of the next stage's first layer."""

    conv_stages: Any  # a list of ConvStage

    def __init__(self, config: HybridConfig, spec: DatasetSpec) -> None:
        attending, convolving = config.split(spec)
        super().__init__(config, spec, attending)
        self.sizes = spec.stage_sizes
        self.first_conv_w = sum(config.layers)
        self.num_ws = self.first_conv_w + 2 * len(convolving) + 1
        channels = [config.widths[-1], *(config.channels(size) for size in convolving)]
        self.conv_stages = nn.ModuleList(
            ConvStage(config, size, a, b, spec.channels)
            for size, (a, b) in zip(convolving, pairwise(channels), strict=True)
        )

    def forward(
        self, ws: Tensor, noise_mode: str = "random", dtype: torch.dtype | None = None, recomputed_stages: int = 0
    ) -> Tensor:
        """Styles [batch, num_ws, w_dim] to images; see `SynthesisNetwork.forward`."""
        count = len(self.conv_stages)
        attention_ws = ws[:, : self.first_conv_w + 1]
        x, image = self.run_stages(attention_ws, noise_mode, dtype, max(recomputed_stages - count, 0))
        x = tokens_to_image(x, self.sizes[-1 - count]).contiguous()
        each_w = ws.unbind(dim=1)[self.first_conv_w :]
        for i, stage in enumerate(self.conv_stages):
            styles = each_w[2 * i : 2 * i + 3]
            if i >= count - recomputed_stages and torch.is_grad_enabled():
                x, colors = checkpoint(stage, x, styles, noise_mode, use_reentrant=False)
            else:
                x, colors = stage(x, styles, noise_mode)
            image = upsample(image) + colors
        return image

    def style_layers(self) -> list[list[EqualizedLinear]]:
        readers = super().style_layers()
        for stage in self.conv_stages:
            readers[-1].append(stage.conv0.affine)  # beside the ToRGB of the stage before
            readers += [[stage.conv1.affine], [stage.to_rgb.affine]]
        return readers


class HybridGenerator(StyleGenerator):
    """Mapping network and hybrid synthesis network."""

    def __init__(self, config: HybridConfig, spec: DatasetSpec) -> None:
        super().__init__(config, spec)
        self.synthesis = HybridSynthesis(config, spec)


register("generator", HybridConfig, HybridGenerator)
