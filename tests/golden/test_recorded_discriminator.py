"""The discriminator equals the published one: logits at every batch size, R1 and gradients."""

import functools

import pytest
import torch
import torch.nn.functional as F
from golden_data import relative_error
from recorded_networks import recorded_discriminator
from torch import Tensor, nn

from training.losses.functions import r1_penalty
from training.networks.discriminator import Discriminator

load = functools.cache(recorded_discriminator)
both = pytest.mark.parametrize("name", ["disc_orig", "disc_resnet"])


def published_parameter(network: Discriminator, name: str) -> nn.Parameter:
    block, layer, kind = name.split(".")
    if block == "mapping":
        mapping = network.mapping_network
        owner = mapping.embed if layer == "embed" else mapping.layers[int(layer.removeprefix("fc"))]
    elif block == "b4":
        owner = getattr(network.epilogue, layer)
    else:
        owner = getattr(network.blocks[["b16", "b8"].index(block)], layer.replace("fromrgb", "from_rgb"))
    return getattr(owner, kind)


def assert_gradients(network: Discriminator, data: dict[str, Tensor], prefix: str) -> None:
    names = [key for key in data if key.startswith(prefix)]
    assert len(names) >= 4
    for key in names:
        gradient = published_parameter(network, key.removeprefix(prefix)).grad
        assert relative_error(gradient, data[key]) < 1e-4, key


@both
@pytest.mark.parametrize("batch", [1, 2, 4, 8])
def test_logits(name: str, batch: int) -> None:
    network, data = load(name)
    logits = network(data["img"][:batch], data["c"][:batch])
    assert relative_error(logits, data["logits" if batch == 8 else f"logits_batch{batch}"]) < 1e-5


@both
def test_clamp(name: str) -> None:
    network, data = recorded_discriminator(name)
    for layer in network.modules():
        if getattr(layer, "clamp", None) is not None:
            layer.clamp = 0.5
    assert relative_error(network(data["img"], data["c"]), data["logits_clamp0.5"]) < 1e-5


@both
def test_gradients(name: str) -> None:
    network, data = load(name)
    network.zero_grad()
    F.softplus(-network(data["img"], data["c"])).mean().backward()
    assert_gradients(network, data, "grad:")


@both
def test_r1_and_its_gradients(name: str) -> None:
    network, data = load(name)
    network.zero_grad()
    image = data["img"].clone().requires_grad_()
    logits = network(image, data["c"])
    (slope,) = torch.autograd.grad(logits.sum(), image, retain_graph=True)
    assert relative_error(slope, data["dlogits_dimg"]) < 1e-5
    penalty = r1_penalty(image, logits)
    assert relative_error(penalty, data["r1_penalty"]) < 1e-4
    penalty.mean().backward()
    assert_gradients(network, data, "r1grad:")
    norm = torch.stack([p.grad.norm() for p in network.parameters() if p.grad is not None]).norm()
    assert relative_error(norm, data["r1gradnorm:all_params"]) < 1e-4
