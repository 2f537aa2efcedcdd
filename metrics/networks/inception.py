"""The Inception network of 2015 that FID, KID and IS are defined by, and its weights in either published layout."""

import itertools
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import inception as published

from metrics.weights.reading import check_names, check_state, expected_state, is_torchscript, read_state

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


_NETWORK = "the Inception network of 2015"
_LEAVES = {"weight": "conv.weight", "beta": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var"}


def read_inception(path: Path) -> dict[str, Tensor]:
    """Return the state of the network from a .pth state or a TorchScript archive, of which no code is run.

    Raises ValueError for any other file.
    """
    state = read_state(path)
    if is_torchscript(path):
        state = _translate(path, state)
    check_state(path, _NETWORK, expected_state(InceptionV3), state)
    return state


def torchscript_names() -> dict[str, str]:
    """Return the name in the .pth file of each of the 378 tensors of inception-2015-12-05.pt.

    There, blocks and convolutions are counted as in TensorFlow's graph. All further tensors of the .pth file are
    constant: batch normalisation has no gain (1), and counters (0).
    """
    with torch.device("meta"):
        network = InceptionV3()
    units: dict[str, str] = {}
    for kind in ("conv", "mixed"):
        named = [(name, block) for name, block in network.named_children() if name.lower().startswith(kind)]
        for index, (name, block) in enumerate(named):
            place = f"layers.{_numbered(kind, index)}"
            inner = _block_names(block) if kind == "mixed" else []
            units |= {f"{place}.{theirs}": f"{name}.{ours}" for theirs, ours in inner} or {place: name}
    leaves = {f"{theirs}.{a}": f"{ours}.{b}" for theirs, ours in units.items() for a, b in _LEAVES.items()}
    return {**leaves, "output.weight": "fc.weight", "output.bias": "fc.bias"}


def _block_names(block: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the archive's and our name of each convolution of a block."""
    names = [name for name, _ in block.named_children()]
    towers = 0
    has_forks = any(name.endswith("b") for name in names)
    for branch, its_names in itertools.groupby(names, lambda name: re.sub(r"_\d[ab]?$", "", name)):
        branch_names = list(its_names)
        forks = [name for name in branch_names if name[-1] in "ab"]
        convs = [name for name in branch_names if name[-1] not in "ab"]
        prefix = ""
        if (
            len(convs) > 1 or forks or branch == "branch_pool"
        ):  # of several steps; with forks it is written without a dot
            prefix = _numbered("tower", towers) + ("_" if has_forks else ".")
            towers += 1
        yield from ((f"{prefix}{_numbered('conv', index)}", name) for index, name in enumerate(convs))
        yield from ((f"{prefix}{_numbered('mixed_conv', index)}", name) for index, name in enumerate(forks))


def _numbered(name: str, index: int) -> str:
    return f"{name}_{index}" if index else name


def _translate(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of an archive under the names of the .pth file, with the constant ones added."""
    names = torchscript_names()
    check_names(path, _NETWORK, names.keys(), tensors.keys())
    state = {names[theirs]: tensor for theirs, tensor in tensors.items()}
    for name in list(state):
        if name.endswith(".bn.bias"):
            state[f"{name.removesuffix('.bias')}.weight"] = torch.ones_like(state[name])
            state[f"{name.removesuffix('.bias')}.num_batches_tracked"] = torch.zeros([], dtype=torch.int64)
    return state
