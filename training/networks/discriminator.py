"""The discriminator: the convolutional network of StyleGAN2 (arXiv 1912.04958, section 4.1)."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_utils.ops.upfirdn2d import downsample2d, setup_filter
from training.config import DatasetSpec, DiscriminatorConfig
from training.networks.layers import RESAMPLE_TAPS, EqualizedConv2d, EqualizedLinear, scaled_convolutions
from training.networks.mapping import MappingNetwork, label_logits


def minibatch_std(x: Tensor, group_size: int) -> Tensor:
    """Append a channel to x, [batch, channels, height, width]: the standard deviation in each group, averaged over features.

    Images i and i + batch / group share a group. A batch smaller than the group is one group; else the group size must divide
    it. Raises ValueError.
    """
    group = min(group_size, len(x))
    if len(x) % group:
        raise ValueError(f"a batch of {len(x)} images cannot be cut into minibatch-std groups of {group}")
    grouped = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(0, (group, -1))  # float16 squares overflow
    std = (grouped.var(dim=0, correction=0) + 1e-8).sqrt().mean(dim=[1, 2, 3])  # [batch / group]
    channel = std.to(x.dtype).expand(group, -1).reshape(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
    return torch.cat([x, channel], dim=1)


class Block(nn.Module):
    """Two convolutions at one resolution; the second halves it."""

    def __init__(self, config: DiscriminatorConfig, in_channels: int, out_channels: int, rgb_channels: int) -> None:
        super().__init__()
        clamp = config.clamp
        gain = math.sqrt(0.5) if config.architecture == "resnet" else 1.0
        self.from_rgb = (
            EqualizedConv2d(rgb_channels, in_channels, 1, activation="lrelu", clamp=clamp) if rgb_channels else None
        )
        self.conv0 = EqualizedConv2d(in_channels, in_channels, 3, activation="lrelu", clamp=clamp)
        self.conv1 = EqualizedConv2d(in_channels, out_channels, 3, activation="lrelu", clamp=clamp, down=2, gain=gain)
        self.skip = (
            EqualizedConv2d(in_channels, out_channels, 1, bias=False, down=2, gain=gain)
            if config.architecture == "resnet"
            else None
        )

    def forward(self, x: Tensor | None, image: Tensor) -> Tensor:
        """Features [batch, in, height, width] (None in the first block) and the image of that size to [batch, out, ...]."""
        layers = [layer for layer in (self.conv0, self.conv1, self.from_rgb, self.skip) if layer is not None]
        conv0, conv1, *others = scaled_convolutions(layers)
        if self.from_rgb is not None:
            rgb = self.from_rgb(image, others[0])
            x = rgb if x is None else x + rgb
        assert x is not None
        y = self.conv1(self.conv0(x, conv0), conv1)
        return y if self.skip is None else self.skip(x, others[-1]) + y


class Epilogue(nn.Module):
    """Minibatch standard deviation, one convolution and two linear layers to the logit or the projection vector."""

    def __init__(
        self, config: DiscriminatorConfig, size: tuple[int, int], channels: int, rgb_channels: int, out_features: int
    ) -> None:
        super().__init__()
        self.mbstd_group = config.mbstd_group
        self.from_rgb = (
            EqualizedConv2d(rgb_channels, channels, 1, activation="lrelu", clamp=config.clamp) if rgb_channels else None
        )
        self.conv = EqualizedConv2d(channels + 1, channels, 3, activation="lrelu", clamp=config.clamp)
        self.fc = EqualizedLinear(channels * size[0] * size[1], channels, activation="lrelu")
        self.out = EqualizedLinear(channels, out_features)

    def hidden(self, x: Tensor, image: Tensor) -> Tensor:
        """Features [batch, channels, height, width] to what the last layer takes, [batch, channels].

        Computed in the dtype of the weights: the minibatch-std channel is a small signal, which half precision would round.
        """
        x = x.to(self.conv.weight.dtype)
        if self.from_rgb is not None:
            x = x + self.from_rgb(image.to(x.dtype))
        x = self.conv(minibatch_std(x, self.mbstd_group))
        hidden: Tensor = self.fc(x.flatten(1))
        return hidden


class Discriminator(nn.Module):
    """Image (and label) to logit. Architecture: orig = plain chain, resnet = residual blocks, skip = image into each block."""

    resample_filter: Tensor

    def __init__(self, config: DiscriminatorConfig, spec: DatasetSpec) -> None:
        super().__init__()
        self.is_skip, self.is_san = config.architecture == "skip", config.san
        sizes = list(reversed(spec.stage_sizes))  # largest first
        end_size = (sizes[-1][0] // 2, sizes[-1][1] // 2)
        channels = [config.channels(*size) for size in [*sizes, end_size]]
        reads_image = [spec.channels if self.is_skip or i == 0 else 0 for i in range(len(sizes))]
        self.blocks = nn.ModuleList(
            Block(config, a, b, rgb) for a, b, rgb in zip(channels, channels[1:], reads_image, strict=False)
        )
        cmap_dim = channels[-1] if spec.label_dim > 0 else 0
        self.epilogue = Epilogue(config, end_size, channels[-1], spec.channels if self.is_skip else 0, cmap_dim or 1)
        self.mapping_network = (
            MappingNetwork(0, spec.label_dim, cmap_dim, config.mapping_layers, w_avg_beta=None) if cmap_dim else None
        )
        self.register_buffer("resample_filter", setup_filter(RESAMPLE_TAPS), persistent=False)

    def forward(
        self,
        image: Tensor,
        c: Tensor | None = None,
        dtype: torch.dtype | None = None,
        in_two_terms: bool = False,
        class_logits: bool = False,
    ) -> Tensor:
        """Logits of images, in the dtype of the weights.

        Args:
            image: [batch, channels, height, width], -1..1.
            c: Labels, [batch, c_dim].
            dtype: Of the blocks' feature maps; None = that of the images.
            in_two_terms: With SAN, for D's own step: see `san_logits`.
            class_logits: Also return the logits for each class; not with SAN.

        Returns:
            [batch, 1]; in two terms [batch, 2]; with class logits [batch, 1 + c_dim].
        """
        if dtype is not None and dtype != image.dtype:  # tensor cores want channels last
            image = image.to(dtype, memory_format=torch.channels_last if image.is_cuda else torch.preserve_format)
        x: Tensor | None = None
        for block in self.blocks:
            x = block(x, image)
            if self.is_skip:
                image = downsample2d(image, self.resample_filter)
        assert x is not None
        hidden = self.epilogue.hidden(x, image)
        if self.is_san:
            return self.san_logits(hidden, c, in_two_terms)
        out: Tensor = self.epilogue.out(hidden)
        return out if self.mapping_network is None else label_logits(self.mapping_network, out, c, class_logits)

    def san_logits(self, hidden: Tensor, c: Tensor | None, in_two_terms: bool) -> Tensor:
        """Logits by a last layer w of unit length (SAN, arXiv 2301.12811), [batch, 1].

        In two terms, [batch, 2]: first the logits with w held constant, which train what is below, then the product of w
        with its input held constant, which trains w. With labels w is the projection vector.
        """
        out = self.epilogue.out
        projection = None if self.mapping_network is None else self.mapping_network(None, c)
        if projection is not None:
            hidden = out(hidden)
        direction = F.normalize(out.weight if projection is None else projection, dim=1)

        def product(hidden: Tensor, direction: Tensor) -> Tensor:
            return (hidden * direction).sum(dim=1, keepdim=True)

        logits = product(hidden, direction.detach() if in_two_terms else direction)
        logits = logits + out.bias if projection is None else logits
        return torch.cat([logits, product(hidden.detach(), direction)], dim=1) if in_two_terms else logits

    def features(self, image: Tensor) -> list[Tensor]:
        """The feature maps of each block, [batch, channels, height, width], of images -1..1; the largest first."""
        maps: list[Tensor] = []
        for block in self.blocks:
            maps.append(block(maps[-1] if maps else None, image))
            if self.is_skip:
                image = downsample2d(image, self.resample_filter)
        return maps

    def layers_from_image(self) -> Iterator[nn.Module]:
        """The convolution layers of the blocks, from the image on, in StyleGAN2-ADA's order, as --freezed counts them."""
        for block in self.blocks:
            layers = (getattr(block, name) for name in ("from_rgb", "conv0", "conv1", "skip"))
            yield from (layer for layer in layers if layer is not None)
