"""DINOv2's vision transformer: images to features.

The network and its published weights are those of Oquab et al., DINOv2: Learning Robust Visual Features without
Supervision, 2023. Written anew; with random weights it gives what the published program gives, but it is unverified
against the published weights: no values recorded with them were at hand.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metrics.weights.reading import check_state, expected_state, read_state, with_state

_MEAN = (0.485, 0.456, 0.406)  # of ImageNet's colours, 0..1
_STD = (0.229, 0.224, 0.225)
_NORM_EPS = 1e-6
_MLP_RATIO = 4
_GRID_OFFSET = 0.1  # patches a side that the published program adds to the scale of the position embedding


@dataclass(frozen=True)
class TransformerSize:
    """The size of a vision transformer and of its input images."""

    width: int  # features of a token
    depth: int
    heads: int
    patch_px: int
    trained_grid: int  # patches a side that it has a position embedding for
    input_px: int  # side of the images, a multiple of patch_px

    @property
    def grid(self) -> int:
        return self.input_px // self.patch_px


VIT_L14 = TransformerSize(width=1024, depth=24, heads=16, patch_px=14, trained_grid=37, input_px=224)


class Dinov2(nn.Module):
    """The transformer, in eval mode from the start; its state has the names of the published .pth file."""

    def __init__(self, size: TransformerSize = VIT_L14) -> None:
        super().__init__()
        self.size = size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.mask_token = nn.Parameter(torch.zeros(1, size.width))  # in the file; only its training used it
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + size.trained_grid**2, size.width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, size.width, size.patch_px, stride=size.patch_px)})
        self.blocks = nn.ModuleList(Block(size.width, size.heads) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width, eps=_NORM_EPS)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return features, float32 [n, width], of images, uint8 [n, 1 or 3, height, width]; grey counts as RGB."""
        patches = self.patch_embed["proj"](normalise(images, self.size.input_px)).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.position_embedding()
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])

    def position_embedding(self) -> Tensor:
        """Return what is added to the tokens, [1, 1 + patches, width]: the trained embedding, resized to the grid.

        As in the published program: bicubic, without smoothing, and with the sampling step of a grid that is a tenth of a
        patch larger.
        """
        trained, grid = self.size.trained_grid, self.size.grid
        if grid == trained:
            return self.pos_embed
        patches = self.pos_embed[:, 1:].unflatten(1, (trained, trained)).permute(0, 3, 1, 2)
        patches = F.interpolate(patches, scale_factor=(grid + _GRID_OFFSET) / trained, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], patches.flatten(2).transpose(1, 2)], dim=1)


class Block(nn.Module):
    """Attention, then a layer of neurons for each token; both add to the tokens what they find, scaled by channel."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.attn = Attention(width, heads)
        self.ls1 = ChannelScale(width)
        self.norm2 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, _MLP_RATIO * width)})
        self.mlp["fc2"] = nn.Linear(_MLP_RATIO * width, width)
        self.ls2 = ChannelScale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x)))))


class Attention(nn.Module):
    """Every head lets each token gather from all tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class ChannelScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def normalise(images: Tensor, size_px: int) -> Tensor:
    """Return the network's input, float32 [n, 3, size_px, size_px], of images, uint8 [n, 1 or 3, height, width].

    Bicubic with smoothing where the image shrinks, neither rounded nor clamped, then relative to ImageNet's colours:
    as EDM2's program prepares images for FD_DINOv2 (Karras et al., 2024).
    """
    x = F.interpolate(images.float(), (size_px, size_px), mode="bicubic", antialias=True) / 255
    return (x - x.new_tensor(_MEAN).view(3, 1, 1)) / x.new_tensor(_STD).view(3, 1, 1)


def load_dinov2(path: Path, size: TransformerSize = VIT_L14) -> Dinov2:
    """Return the network with the weights of a file; raises ValueError, as `read_dinov2` does."""
    return with_state(partial(Dinov2, size), read_dinov2(path, size))


def read_dinov2(path: Path, size: TransformerSize = VIT_L14) -> dict[str, Tensor]:
    """Return the state of the network from a .pth file; raises ValueError for any other file."""
    state = read_state(path)
    what = f"DINOv2 with {size.depth} blocks of width {size.width} and patches of {size.patch_px} px"
    check_state(path, what, expected_state(partial(Dinov2, size)), state)
    return state
