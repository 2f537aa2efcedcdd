"""The generator: stages of encoder layers from a learned constant to an image (paper, figure 2)."""

from collections.abc import Sequence
from itertools import accumulate, islice, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from torch_utils.ops.upsample import upsample2x
from training.config import DatasetSpec, GeneratorConfig
from training.networks.attention import EncoderLayer, Modulation, modulations, uniform_parameter
from training.networks.base import StyleGenerator
from training.networks.layers import EqualizedLinear
from training.networks.modulation import affine_styles, indices_by_key, modulated_weights


def upsample(x: Tensor) -> Tensor:
    """[batch, channels, height, width] at twice the size through the [1, 3, 3, 1] filter, channels last in memory."""
    return upsample2x(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def tokens_to_image(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Row-major tokens [batch, tokens, channels] as [batch, channels, height, width], without a copy."""
    return x.transpose(1, 2).unflatten(2, size)


def image_to_tokens(x: Tensor) -> Tensor:
    """[batch, channels, height, width] as row-major tokens [batch, tokens, channels]."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


class ToRGB(nn.Module):
    """Modulated linear map from tokens to colours."""

    def __init__(self, w_dim: int, width: int, img_channels: int) -> None:
        super().__init__()
        self.affine = EqualizedLinear(w_dim, width, bias_init=1)
        self.weight = uniform_parameter([img_channels, width], width)
        self.bias = nn.Parameter(torch.zeros(img_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Tokens [batch, tokens, width] to colours [batch, tokens, img_channels] in the dtype of the weights.

        `w` are style vectors, [batch, w_dim], or their `rgb_weights`, [batch, img_channels, width].
        """
        weight = w if w.ndim == 3 else rgb_weights([self], [w])[0]
        return torch.baddbmm(self.bias.to(x.dtype), x, weight.to(x.dtype).mT).to(self.bias.dtype)


def rgb_weights(layers: Sequence[ToRGB], ws: Sequence[Tensor]) -> list[Tensor]:
    """The weight of each ToRGB for its style vectors, [batch, img_channels, width]; one product per width."""
    found: dict[int, Tensor] = {}
    for indices in indices_by_key(layer.weight.shape[1] for layer in layers):
        styles = affine_styles([layers[index].affine for index in indices], [ws[index] for index in indices])
        found |= zip(indices, modulated_weights(styles, [layers[index].weight for index in indices]), strict=True)
    return [found[index] for index in range(len(layers))]


class Stage(nn.Module):
    """The encoder layers of one resolution, with the position embedding before and the ToRGB after them."""

    layers: Any  # a list of EncoderLayer

    def __init__(
        self,
        config: GeneratorConfig,
        size: tuple[int, int],  # (height, width), px
        num_layers: int,
        width: int,
        out_width: int,  # width of the next stage
        img_channels: int,
    ) -> None:
        super().__init__()
        num_tokens = size[0] * size[1]
        self.size = size
        self.pos_embedding = nn.Parameter(torch.zeros(1, num_tokens, width))
        widths = [width] * num_layers + [out_width]
        self.layers = nn.ModuleList(EncoderLayer(config, num_tokens, a, b) for a, b in pairwise(widths))
        self.to_rgb = ToRGB(config.w_dim, out_width, img_channels)

    def forward(
        self, x: Tensor, factors: Sequence[Modulation], rgb_weight: Tensor, noise_mode: str, is_recomputed: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Tokens [batch, tokens, width], the factors of the layers and the weight of ToRGB to tokens and an image.

        The image has the size of this stage. A recomputed stage stores only the input of each layer; the backward pass
        computes the rest again.
        """
        x = x + self.pos_embedding.to(x.dtype)
        for layer, f in zip(self.layers, factors, strict=True):
            x = checkpoint(layer, x, f, noise_mode, use_reentrant=False) if is_recomputed else layer(x, f, noise_mode)
        return x, tokens_to_image(self.to_rgb(x, rgb_weight), self.size)


class SynthesisNetwork(nn.Module):
    """Styles to image: each stage adds its colours to the up-sampled image of the stage before."""

    stages: Any  # a list of Stage

    def __init__(
        self, config: GeneratorConfig, spec: DatasetSpec, sizes: Sequence[tuple[int, int]] | None = None
    ) -> None:
        """`sizes` are the (height, width) of the stages, smallest first; None = all stages of the images."""
        super().__init__()
        self.num_ws = sum(config.layers) + 1  # one per layer and one for the last ToRGB
        self.num_layers = config.layers
        self.sizes = tuple(sizes or spec.stage_sizes)
        self.const = nn.Parameter(torch.randn(self.sizes[0][0] * self.sizes[0][1], config.widths[0]))
        out_widths = [*config.widths[1:], config.widths[-1]]
        self.stages = nn.ModuleList(
            Stage(config, size, num_layers, width, out_width, spec.channels)
            for size, num_layers, width, out_width in zip(
                self.sizes, config.layers, config.widths, out_widths, strict=True
            )
        )

    def forward(
        self, ws: Tensor, noise_mode: str = "random", dtype: torch.dtype | None = None, recomputed_stages: int = 0
    ) -> Tensor:
        """Styles to images; each layer reads one style, the ToRGB of a stage that of the next stage's first layer.

        Args:
            ws: Styles, [batch, num_ws, w_dim].
            noise_mode: random (fresh), const (the stored noise) or none.
            dtype: Of the tokens and the large products; None = that of the weights, which is that of the image.
            recomputed_stages: Number of stages, from the last, that the backward pass recomputes instead of storing.

        Returns:
            [batch, img_channels, height, width], about -1..1.
        """
        return self.run_stages(ws, noise_mode, dtype, recomputed_stages)[1]

    def run_stages(
        self, ws: Tensor, noise_mode: str, dtype: torch.dtype | None, recomputed_stages: int
    ) -> tuple[Tensor, Tensor]:
        """The tokens [batch, tokens, width] after the last stage, and the image."""
        x = self.const.to(dtype or self.const.dtype).expand(len(ws), -1, -1)
        factors, rgb = self.modulate(ws, x.dtype)
        count = len(self.stages)
        image: Tensor | None = None
        for i, stage in enumerate(self.stages):
            is_recomputed = i >= count - recomputed_stages and torch.is_grad_enabled()
            x, colors = stage(x, factors[i], rgb[i], noise_mode, is_recomputed)
            image = colors if image is None else upsample(image) + colors
            if i < count - 1:
                x = image_to_tokens(upsample(tokens_to_image(x, stage.size)))
        assert image is not None
        return x, image

    def modulate(self, ws: Tensor, dtype: torch.dtype) -> tuple[list[list[Modulation]], list[Tensor]]:
        """The factors of the encoder layers of each stage, and the weight of its ToRGB."""
        each_w = ws.unbind(dim=1)
        found = iter(modulations([layer for stage in self.stages for layer in stage.layers], each_w, dtype))
        factors = [list(islice(found, count)) for count in self.num_layers]
        rgb_ws = [each_w[index] for index in accumulate(self.num_layers)]  # that of the next stage's first layer
        return factors, rgb_weights([stage.to_rgb for stage in self.stages], rgb_ws)

    def style_layers(self) -> list[list[EqualizedLinear]]:
        """The linear maps that read each style: its encoder layer, and the ToRGB of the stage before."""
        readers: list[list[EqualizedLinear]] = [[]]
        for stage in self.stages:
            for layer in stage.layers:
                readers[-1].append(layer.affine)
                readers.append([])
            readers[-1].append(stage.to_rgb.affine)
        return readers


class Generator(StyleGenerator):
    """Mapping network and synthesis network of Styleformer."""

    def __init__(self, config: GeneratorConfig, spec: DatasetSpec) -> None:
        super().__init__(config, spec)
        self.synthesis = SynthesisNetwork(config, spec)
