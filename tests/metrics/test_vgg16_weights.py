"""Reading the weights of VGG16: torchvision's layout, archives of unknown names, and everything that must be refused."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import vgg_golden
from torch import Tensor

from metrics.networks import vgg16_weights
from metrics.networks.vgg16_weights import is_proven, load_vgg16, read_vgg16
from metrics.weights.published import Weights

CONVOLUTIONS = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]  # of torchvision's `features`
SHAPES = "features.24.weight"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return vgg_golden.small_state()


def save(folder: Path, state: object) -> Path:
    torch.save(state, folder / "weights.pth")
    return folder / "weights.pth"


def archive(folder: Path, tensors: Mapping[str, Tensor]) -> Path:
    """Write a TorchScript archive with tensors of these dotted names."""
    root = torch.nn.Module()
    for name, tensor in tensors.items():
        *parents, leaf = name.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, torch.nn.Module())
            module = module.get_submodule(parent)
        module.register_buffer(leaf, tensor)
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(root), folder / "weights.pt")
    return folder / "weights.pt"


def renamed(state: Mapping[str, Tensor], convolution: str, layer: str, leaf: str = "{}") -> dict[str, Tensor]:
    """The state with names as a program of its own may give them, numbered from 1, in the reverse order of names."""
    names = {f"features.{ours}": convolution.format(number) for number, ours in enumerate(CONVOLUTIONS, start=1)}
    names |= {f"classifier.{ours}": layer.format(number) for number, ours in ((1, 0), (2, 3), (3, 6))}
    tensors = {}
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        tensors[f"{names[module]}{leaf.format(kind)}"] = tensor
    return dict(sorted(tensors.items(), reverse=True))


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether both have the same names and, each tensor repeating one number, the same values."""
    return a.keys() == b.keys() and all(
        a[name].shape == b[name].shape and a[name].flatten()[[0, -1]].equal(b[name].flatten()[[0, -1]]) for name in a
    )


@pytest.mark.parametrize("is_zip", [True, False])  # torchvision's file is of the older kind
def test_torchvisions_layout(is_zip: bool, state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "weights.pth", _use_new_zipfile_serialization=is_zip)
    assert same(read_vgg16(tmp_path / "weights.pth"), state)


def test_loading_draws_no_random_numbers_and_needs_no_gradients(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    network = load_vgg16(save(tmp_path, state))
    assert torch.equal(torch.rand(1), expected)
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())
    assert same(network.state_dict(), state)


@pytest.mark.parametrize("has_lpips", [False, True])
def test_archives_are_mapped_by_shape_and_natural_order(
    has_lpips: bool, state: dict[str, Tensor], tmp_path: Path
) -> None:
    tensors = renamed(state, "layers.conv{}", "layers.fc{}", ".{}")
    if has_lpips:
        sizes = enumerate((64, 128, 256, 512, 512))
        tensors |= {
            f"lpips{i + 8}.weight": torch.rand(1, size, 1, 1) if i % 2 else torch.rand(size) for i, size in sizes
        }
    assert same(read_vgg16(archive(tmp_path, tensors)), state)


def test_archives_with_other_names(state: dict[str, Tensor], tmp_path: Path) -> None:
    flat = renamed(state, "conv_{}", "dense_{}", "_{}")
    first = {name.replace("conv_1_", "conv_"): tensor for name, tensor in flat.items()}  # as TensorFlow counts
    assert "conv_weight" in first and "conv_13_bias" in first
    blocks = dict(state)  # torchvision's own names
    for tensors in (flat, blocks):
        assert same(read_vgg16(archive(tmp_path, tensors)), state)


def test_archives_that_leave_a_doubt_are_refused(
    state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path, {"weight": torch.zeros(2)})  # in place of many archives of half a gigabyte
    tensors = renamed(state, "conv{}", "fc{}", ".{}")
    without_bias = {name: tensor for name, tensor in tensors.items() if name != "conv5.bias"}
    without_layer = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc3")}
    words = {name.replace("conv13", "last_conv"): tensor for name, tensor in tensors.items()}
    exchanged = {**tensors, "conv1.weight": tensors["conv2.weight"], "conv2.weight": tensors["conv1.weight"]}
    half = {**tensors, "conv3.bias": tensors["conv3.bias"].half()}
    sizes = (64, 128, 256, 512)
    four = {**tensors, **{f"lpips{index}": torch.ones(size) for index, size in enumerate(sizes)}}
    for case, message in {
        "a bias is missing": (without_bias, r"it lacks 'conv5\.bias'"),
        "a layer is missing": (without_layer, r"has 13 convolutions and 2 fully connected layers, not 13 and 3"),
        "more": ({**tensors, "mean": torch.zeros(3)}, r"also has 'mean', \[3\]"),
        "a counter": ({**tensors, "steps": torch.tensor(3)}, r"also has 'steps', \[\]"),
        "four vectors": (four, r"also has 'lpips0', \[64\]"),
        "another map": ({**tensors, "conv14.weight": torch.zeros(8, 8, 3, 3)}, "has 14 convolutions"),
        "another axis": ({**tensors, "x": torch.zeros(2, 3, 4)}, "cannot be read as the VGG16 network"),
        "order": (words, r"names convolutions 'conv1\.weight' and 'last_conv\.weight', so their order is not known"),
        "shapes": (exchanged, r"features\.0\.weight is torch\.float32 \[64, 64, 3, 3\]"),
        "types": (half, r"features\.5\.bias is torch\.float16"),
        "nothing": ({}, "has 0 convolutions and 0 fully connected"),
    }.values():
        monkeypatch.setattr(vgg16_weights, "read_state", lambda path, case=case: case)
        with pytest.raises(ValueError, match=message):
            read_vgg16(path)


def test_other_networks_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    lacking = {name: value for name, value in state.items() if name != SHAPES}
    infinite = torch.zeros(512)
    infinite[7] = float("inf")
    for case, message in {
        "lacking": (lacking, rf"is not the VGG16 network: of 32 tensors expected it has 31; it lacks '{SHAPES}'"),
        "further": ({**state, "features.1.weight": torch.zeros(64)}, r"also has 'features\.1\.weight'"),
        "misshapen": (
            {**state, SHAPES: torch.zeros(512, 256, 3, 3)},
            rf"{SHAPES} is torch.float32 \[512, 256, 3, 3\], not torch.float32 \[512, 512, 3, 3\]",
        ),
        "half": ({**state, SHAPES: state[SHAPES].half()}, "is torch.float16"),
        "NaN": (
            {**state, SHAPES: torch.full((), float("nan")).expand(512, 512, 3, 3)},
            f"{SHAPES} has values that are not finite",
        ),
        "infinite": ({**state, "features.28.bias": infinite}, r"features\.28\.bias has values that are not finite"),
        "no tensor": ({**state, SHAPES: "weights"}, f"{SHAPES} is str, not"),
        "no tensors": ([1, 2], "has a list where named tensors are expected"),
        "LPIPS only": ({"lin0.model.1.weight": torch.zeros(1, 64, 1, 1)}, "of 32 tensors expected it has 0"),
        "no names": ({**state, 5: torch.zeros(2)}, "also has 5"),
    }.values():
        with pytest.raises(ValueError, match=message):
            read_vgg16(save(tmp_path, case))


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(100)])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.pth"):
        read_vgg16(path)


def test_truncated_files_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    for whole in (save(tmp_path, state), archive(tmp_path, {"weight": torch.zeros(20_000)})):
        path = tmp_path / f"part-{whole.name}"
        path.write_bytes(whole.read_bytes()[:-5000])
        with pytest.raises(ValueError, match=rf"{path.name} \([0-9,]+ bytes\) is not a file of weights, or damaged"):
            read_vgg16(path)


def test_numbers_from_an_archive_are_not_called_comparable(state: dict[str, Tensor], tmp_path: Path) -> None:
    """Reading one was not tried on the published file, whose hash it may have all the same."""
    assert is_proven(Weights(save(tmp_path, state), "", is_published=True))
    assert not is_proven(Weights(save(tmp_path, state), "", is_published=False))
    assert not is_proven(Weights(archive(tmp_path, {"weight": torch.zeros(2)}), "", is_published=True))
