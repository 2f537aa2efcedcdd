"""A transformer as discriminator: patches, rotary positions and a class token (after GAT, arXiv 2509.24935).

Queries and keys are RMS-normed, and every residual branch is scaled by a learned vector that starts small (LayerScale, arXiv
2103.17239), which keeps adversarial training stable.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnnlib.dataclass_values import require, require_range
from training.config import DatasetSpec
from training.networks.mapping import MappingNetwork, label_logits
from training.registry import MAX_LAYERS, AnyDiscriminator, register

ROTARY_BASE = 100.0  # wavelengths of the rotary positions range from 2 pi to 2 pi times this, in patches
REFERENCE_LR, REFERENCE_WIDTH = 2e-4, 768  # learning rate of Adam for a width; it falls with 1 / width
DEFAULT_D_LR = 0.0025  # optimizer.d_lr, which is meant for equalised layers


@dataclass(frozen=True)
class VitConfig(AnyDiscriminator):
    """A transformer discriminator."""

    kind: str = field(default="vit", kw_only=True)
    patch_px: int = 4  # side of a patch
    width: int = 256  # channels of a token
    depth: int = 6  # blocks
    head_width: int = 64  # channels of an attention head, a multiple of 4
    mlp_ratio: int = 4  # hidden channels of a block's MLP, over the width
    layer_scale: float = 0.1  # of every residual branch, at the start
    mapping_layers: int = 2  # linear layers from label to projection vector

    def __post_init__(self) -> None:
        require_range("discriminator", self, "patch_px width head_width mlp_ratio mbstd_group", 1)
        require_range("discriminator", self, "depth", 1, MAX_LAYERS)
        require_range("discriminator", self, "mapping_layers freeze_layers", 0, MAX_LAYERS)
        require(self.head_width % 4 == 0, f"discriminator.head_width must be a multiple of 4, got {self.head_width}")
        require(
            self.width % self.head_width == 0,
            f"discriminator.width={self.width} must be a multiple of discriminator.head_width={self.head_width}",
        )

    @property
    def lr_scale(self) -> float:
        """Factor on optimizer.d_lr: at its default of 0.0025 the learning rate is 2e-4 * 768 / width."""
        return REFERENCE_LR / DEFAULT_D_LR * REFERENCE_WIDTH / self.width

    def weight_settings(self) -> dict[str, object]:
        names = ("patch_px", "width", "depth", "head_width", "mlp_ratio", "mapping_layers")
        return {name: getattr(self, name) for name in names}

    def check(self, spec: DatasetSpec) -> None:
        require(
            spec.height % self.patch_px == 0 and spec.width % self.patch_px == 0,
            f"discriminator.patch_px={self.patch_px} does not divide images of {spec.width}x{spec.height} px",
        )


def rotary_angles(height: int, width: int, channels: int) -> Tensor:
    """Angles of the channel pairs of each patch, [1 + height * width, channels / 2]; a class token in front has 0.

    The first half of the pairs turns with the row, the second with the column (arXiv 2104.09864, along two axes).
    """
    frequencies = ROTARY_BASE ** -torch.linspace(0, 1, channels // 4 + 1)[:-1]
    rows = torch.arange(height)[:, None, None] * frequencies
    columns = torch.arange(width)[None, :, None] * frequencies
    grid = torch.cat([rows.expand(-1, width, -1), columns.expand(height, -1, -1)], dim=2).flatten(0, 1)
    return torch.cat([torch.zeros(1, channels // 2), grid])


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Channel pairs (i, i + channels / 2) of x [batch, heads, tokens, channels] turned by angles [tokens, channels / 2]."""
    a, b = x.chunk(2, dim=3)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=3)


class Linear(nn.Linear):
    """A linear layer that computes in the dtype of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class Block(nn.Module):
    """Pre-norm self-attention and MLP, each scaled and added."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.num_heads = config.width // config.head_width
        self.norm1, self.norm2 = (nn.Parameter(torch.ones(config.width)) for _ in range(2))
        self.qkv = Linear(config.width, 3 * config.width)
        self.proj = Linear(config.width, config.width)
        self.mlp1 = Linear(config.width, config.mlp_ratio * config.width)
        self.mlp2 = Linear(config.mlp_ratio * config.width, config.width)
        self.scale1, self.scale2 = (nn.Parameter(torch.full([config.width], config.layer_scale)) for _ in range(2))

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        """Tokens [batch, tokens, width] to the same shape."""
        x = x + self.scale1.to(x.dtype) * self.attend(rms_norm(x, self.norm1), angles)
        return x + self.scale2.to(x.dtype) * self.mlp2(F.gelu(self.mlp1(rms_norm(x, self.norm2))))

    def attend(self, x: Tensor, angles: Tensor) -> Tensor:
        """Self-attention with normed queries and keys, [batch, tokens, width] to the same shape."""
        query, key, value = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = rotate(rms_norm(query), angles), rotate(rms_norm(key), angles)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


def rms_norm(x: Tensor, weight: Tensor | None = None) -> Tensor:
    """x over the root mean square of its last dimension, computed in float32 at least, times a weight."""
    y = x.to(torch.promote_types(x.dtype, torch.float32))
    y = y * (y.square().mean(dim=-1, keepdim=True) + 1e-6).rsqrt()
    return (y if weight is None else y * weight).to(x.dtype)


class VitDiscriminator(nn.Module):
    """Image (and label) to logit, from the class token."""

    angles: Tensor

    def __init__(self, config: VitConfig, spec: DatasetSpec) -> None:
        super().__init__()
        config.check(spec)
        self.grid = (spec.height // config.patch_px, spec.width // config.patch_px)
        self.patch = nn.Conv2d(spec.channels, config.width, config.patch_px, config.patch_px)
        self.cls = nn.Parameter(torch.randn(config.width) * 0.02)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.Parameter(torch.ones(config.width))
        cmap_dim = config.width if spec.label_dim > 0 else 0
        self.out = Linear(config.width, cmap_dim or 1)
        self.mapping_network = (
            MappingNetwork(0, spec.label_dim, cmap_dim, config.mapping_layers, w_avg_beta=None) if cmap_dim else None
        )
        self.register_buffer("angles", rotary_angles(*self.grid, config.head_width), persistent=False)

    def forward(
        self, image: Tensor, c: Tensor | None = None, dtype: torch.dtype | None = None, class_logits: bool = False
    ) -> Tensor:
        """Images [batch, channels, height, width], -1..1, and labels [batch, c_dim] to logits [batch, 1].

        `dtype` is that of the blocks; patches and the head have that of the weights. With `class_logits` the logits for each
        class follow: [batch, 1 + c_dim].
        """
        x = self.embed(image, dtype)
        for block in self.blocks:
            x = block(x, self.angles)
        out: Tensor = self.out(rms_norm(x[:, 0].to(self.norm.dtype), self.norm))
        return out if self.mapping_network is None else label_logits(self.mapping_network, out, c, class_logits)

    def embed(self, image: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Tokens [batch, 1 + patches, width] of images, the class token first."""
        patches = self.patch(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(image), 1, -1), patches], dim=1)
        return tokens.to(dtype or tokens.dtype)

    def features(self, image: Tensor) -> list[Tensor]:
        """The patches after each block as feature maps, [batch, width, height / patch_px, width / patch_px]."""
        x, maps = self.embed(image), []
        for block in self.blocks:
            x = block(x, self.angles)
            maps.append(x[:, 1:].transpose(1, 2).unflatten(2, self.grid))
        return maps

    def layers_from_image(self) -> Iterator[nn.Module]:
        """The patch embedding and the blocks, as --freezed counts them."""
        yield self.patch
        yield from self.blocks


register("discriminator", VitConfig, VitDiscriminator)
