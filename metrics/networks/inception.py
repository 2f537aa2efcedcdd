"""The Inception network of 2015 that FID, KID and IS are defined by: images to features, features to class scores."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import inception as published

INPUT_PX = 299
FEATURES = 2048
CLASSES = 1008  # of the 2015 graph, which has 1000 and some that are never meant

# Averages count only pixels inside the image, as TensorFlow's did.
_average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_maximum = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)


class _Pooled:
    """In front of a block of torchvision: another pooling before its last branch."""

    pool = staticmethod(_average)

    def _forward(self, x: Tensor) -> list[Tensor]:
        *others, _ = super()._forward(x)  # type: ignore[misc]  # of the block
        return [*others, self.branch_pool(self.pool(x))]  # type: ignore[attr-defined]


class _BlockA(_Pooled, published.InceptionA): ...


class _BlockC(_Pooled, published.InceptionC): ...


class _BlockE(_Pooled, published.InceptionE): ...


class InceptionV3(published.Inception3):
    """The network of TensorFlow's inception-2015-12-05 graph, in eval mode from the start.

    Its state has the names of the published .pth file. The last layer's bias is part of the state and not used: IS is
    published without it.
    """

    def __init__(self) -> None:
        blocks = [published.BasicConv2d, _BlockA, published.InceptionB, _BlockC, published.InceptionD, _BlockE, None]
        super().__init__(CLASSES, aux_logits=False, inception_blocks=blocks, init_weights=False)
        self.Mixed_7c.pool = _maximum  # the graph of 2015 takes the maximum in its last block
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return features, float32 [n, 2048], of images, uint8 [n, 1 or 3, height, width]; grey counts as RGB."""
        x = (resize_as_tensorflow(images.float(), INPUT_PX) - 128) / 128
        x = x.expand(-1, 3, -1, -1)
        *layers, _, _, _ = self.children()  # without average, dropout and class scores
        for layer in layers:
            x = layer(x)
        return x.mean(dim=(2, 3))

    def logits(self, features: Tensor) -> Tensor:
        """Return class scores without bias, float32 [n, 1008] on the network's device, of features, [n, 2048]."""
        return features.to(self.fc.weight.device) @ self.fc.weight.T


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
