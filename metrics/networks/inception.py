"""The Inception network of 2015 that FID, KID and IS are defined by: images to features, features to class scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INPUT_PX = 299
FEATURES = 2048
CLASSES = 1008  # of the 2015 graph, which has 1000 and some that are never meant

_BATCH_NORM_EPS = 1e-3


@dataclass(frozen=True)
class Conv:
    """A convolution of a block, with batch normalisation and ReLU; its padding keeps the size unless it halves it."""

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    halves: bool = False


# Averages count only pixels inside the image, as TensorFlow's did.
_average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_maximum = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
_halve = partial(F.max_pool2d, kernel_size=3, stride=2)

Pool = Callable[[Tensor], Tensor]
Fork = tuple[Conv, Conv]  # both applied to the same input, results side by side
Branch = Sequence[Conv | Pool | Fork]


def _block_35(pool_channels: int) -> list[Branch]:
    return [
        [Conv("branch1x1", 64)],
        [Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))],
        [Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)), Conv("branch3x3dbl_3", 96, (3, 3))],
        [_average, Conv("branch_pool", pool_channels)],
    ]


def _block_35_to_17() -> list[Branch]:
    return [
        [Conv("branch3x3", 384, (3, 3), halves=True)],
        [
            Conv("branch3x3dbl_1", 64),
            Conv("branch3x3dbl_2", 96, (3, 3)),
            Conv("branch3x3dbl_3", 96, (3, 3), halves=True),
        ],
        [_halve],
    ]


def _block_17(inner: int) -> list[Branch]:
    double = [
        Conv("branch7x7dbl_1", inner),
        Conv("branch7x7dbl_2", inner, (7, 1)),
        Conv("branch7x7dbl_3", inner, (1, 7)),
        Conv("branch7x7dbl_4", inner, (7, 1)),
        Conv("branch7x7dbl_5", 192, (1, 7)),
    ]
    return [
        [Conv("branch1x1", 192)],
        [Conv("branch7x7_1", inner), Conv("branch7x7_2", inner, (1, 7)), Conv("branch7x7_3", 192, (7, 1))],
        double,
        [_average, Conv("branch_pool", 192)],
    ]


def _block_17_to_8() -> list[Branch]:
    seven = [
        Conv("branch7x7x3_1", 192),
        Conv("branch7x7x3_2", 192, (1, 7)),
        Conv("branch7x7x3_3", 192, (7, 1)),
        Conv("branch7x7x3_4", 192, (3, 3), halves=True),
    ]
    return [[Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, (3, 3), halves=True)], seven, [_halve]]


def _block_8(pool: Pool) -> list[Branch]:
    def fork(name: str) -> Fork:
        return Conv(f"{name}a", 384, (1, 3)), Conv(f"{name}b", 384, (3, 1))

    return [
        [Conv("branch1x1", 320)],
        [Conv("branch3x3_1", 384), fork("branch3x3_2")],
        [Conv("branch3x3dbl_1", 448), Conv("branch3x3dbl_2", 384, (3, 3)), fork("branch3x3dbl_3")],
        [pool, Conv("branch_pool", 192)],
    ]


BLOCKS: dict[str, list[Branch]] = {
    "Mixed_5b": _block_35(32),
    "Mixed_5c": _block_35(64),
    "Mixed_5d": _block_35(64),
    "Mixed_6a": _block_35_to_17(),
    "Mixed_6b": _block_17(128),
    "Mixed_6c": _block_17(160),
    "Mixed_6d": _block_17(160),
    "Mixed_6e": _block_17(192),
    "Mixed_7a": _block_17_to_8(),
    "Mixed_7b": _block_8(_average),
    "Mixed_7c": _block_8(_maximum),  # the graph of 2015 takes the maximum in its last block
}


class InceptionV3(nn.Module):
    """The network of TensorFlow's inception-2015-12-05 graph, in eval mode from the start.

    Its state has the names of the published .pth file. The last layer's bias is part of the state and not used: IS is
    published without it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvUnit(3, 32, (3, 3), stride=2)
        self.Conv2d_2a_3x3 = ConvUnit(32, 32, (3, 3))
        self.Conv2d_2b_3x3 = ConvUnit(32, 64, (3, 3), padding=(1, 1))
        self.Conv2d_3b_1x1 = ConvUnit(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = ConvUnit(80, 192, (3, 3))
        channels = 192
        for name, branches in BLOCKS.items():
            block = Block(channels, branches)
            self.add_module(name, block)
            channels = block.channels
        self.fc = nn.Linear(FEATURES, CLASSES)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return features, float32 [n, 2048], of images, uint8 [n, 1 or 3, height, width]; grey counts as RGB."""
        x = (resize_as_tensorflow(images.float(), INPUT_PX) - 128) / 128
        x = self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x.expand(-1, 3, -1, -1)))
        x = _halve(self.Conv2d_2b_3x3(x))
        x = _halve(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        for name in BLOCKS:
            x = self.get_submodule(name)(x)
        return x.mean(dim=(2, 3))

    def logits(self, features: Tensor) -> Tensor:
        """Return class scores without bias, float32 [n, 1008] on the network's device, of features, [n, 2048]."""
        return features.to(self.fc.weight.device) @ self.fc.weight.T


class ConvUnit(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: tuple[int, int],
        stride: int = 1,
        padding: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=_BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, channels, height, width] of [n, in_channels, height, width]."""
        return self.bn(self.conv(x)).relu_()


class Block(nn.ModuleDict):
    """Several branches that see the same input; their results side by side are the output of `channels` channels."""

    def __init__(self, in_channels: int, branches: list[Branch]) -> None:
        super().__init__()
        self.branches = branches
        self.channels = sum(self._add_branch(branch, in_channels) for branch in branches)

    def _add_branch(self, branch: Branch, channels: int) -> int:
        for step in branch:
            convs = step if isinstance(step, tuple) else (step,) if isinstance(step, Conv) else ()
            for conv in convs:
                padding = (0, 0) if conv.halves else (conv.kernel[0] // 2, conv.kernel[1] // 2)
                self[conv.name] = ConvUnit(channels, conv.channels, conv.kernel, 2 if conv.halves else 1, padding)
            channels = sum(conv.channels for conv in convs) or channels  # a pool keeps them
        return channels

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, channels, height, width] of [n, in_channels, height, width]; about half the size if it halves."""
        return torch.cat([self._follow(branch, x) for branch in self.branches], dim=1)

    def _follow(self, branch: Branch, x: Tensor) -> Tensor:
        for step in branch:
            if isinstance(step, tuple):
                x = torch.cat([self[conv.name](x) for conv in step], dim=1)
            else:
                x = self[step.name](x) if isinstance(step, Conv) else step(x)
        return x


def resize_as_tensorflow(x: Tensor, size_px: int) -> Tensor:
    """Return float images, [n, channels, height, width], resized to [n, channels, size_px, size_px] as TensorFlow 1 did.

    Bilinear; output pixel i looks at i * input size / output size, without a shift by half a pixel, without smoothing
    when the image shrinks, and without going beyond the last pixel.
    """
    return _resize_axis(_resize_axis(x, 2, size_px), 3, size_px)


def _resize_axis(x: Tensor, axis: int, size_px: int) -> Tensor:
    source = torch.arange(size_px, dtype=torch.float64) * x.shape[axis] / size_px
    first = source.floor().long()
    second = (first + 1).clamp(max=x.shape[axis] - 1)
    shape = [1] * x.ndim
    shape[axis] = size_px
    share = (source - first).view(shape).to(x)
    return torch.lerp(x.index_select(axis, first.to(x.device)), x.index_select(axis, second.to(x.device)), share)
