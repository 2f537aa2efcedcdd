"""The baseline computes what our networks compute, and stores what the published code stores."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks import baseline
from benchmarks.common import config_of, images_of
from benchmarks.contenders import Ours, Published
from benchmarks.timing import saved_bytes
from training.config import DatasetSpec, DiscriminatorConfig, GeneratorConfig
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.presets import preset

SPEC = DatasetSpec(32, 32, 3, label_dim=3)


def shaken(network: nn.Module) -> nn.Module:
    """In double precision, where no rounding flips a leaky ReLU, and with weights away from their special start values."""
    network = network.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return network


def assert_alike(actual: Callable[[], Tensor], expected: Callable[[], Tensor], network: nn.Module) -> None:
    """Outputs and the gradients of all parameters."""
    results = []
    for run in (actual, expected):
        torch.manual_seed(2)
        y = run()
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
        gradients = torch.autograd.grad((y * weight).sum(), list(network.parameters()), allow_unused=True)
        results.append([y, *gradients])
    for a, b in zip(*results, strict=True):
        assert (a is None) == (b is None)
        assert a is None or (a - b).abs().max() <= 1e-9 * b.abs().max().clamp(min=1e-3)


@pytest.mark.parametrize("linformer", [False, True])
@pytest.mark.parametrize("noise_mode", ["random", "const", "none"])
def test_generator(linformer: bool, noise_mode: str) -> None:
    config = GeneratorConfig(
        (64, 32, 16), (1, 2, 1), head_width=8, linformer=linformer, linformer_tokens=32, z_dim=24, w_dim=16
    )
    torch.manual_seed(0)
    network = shaken(Generator(config, SPEC))
    assert isinstance(network, Generator)
    z, c = torch.randn(3, 24).double(), torch.eye(3).double()
    assert_alike(
        lambda: baseline.generator(network, z, c, noise_mode), lambda: network(z, c, noise_mode=noise_mode), network
    )


@pytest.mark.parametrize("architecture", ["orig", "resnet", "skip"])
def test_discriminator(architecture: str) -> None:
    config = DiscriminatorConfig(architecture, channel_base=256, channel_max=16, mbstd_group=2, mapping_layers=2)
    torch.manual_seed(0)
    network = shaken(Discriminator(config, SPEC))
    assert isinstance(network, Discriminator)
    images, c = torch.randn(4, 3, 32, 32).double(), torch.eye(3).double()[[0, 1, 2, 0]]
    assert_alike(lambda: baseline.discriminator(network, images, c), lambda: network(images, c), network)


def test_steps_move_the_weights_alike() -> None:
    """A generator step, a discriminator step and R1 change both sides' weights by the same amounts."""
    config, spec = config_of("demo", 4), images_of("demo")
    config = config.changed(optimizer={"eps": 1.0})  # otherwise tiny gradients move full steps
    published, ours = Published(config, spec, 4, torch.device("cpu")), Ours(config, spec, 4, torch.device("cpu"))
    published.G.load_state_dict(ours.G.state_dict())
    published.D.load_state_dict(ours.D.state_dict())
    before = [p.detach().clone() for p in [*ours.G.parameters(), *ours.D.parameters()]]
    for phase in ("g_main", "d_main", "d_r1"):
        for contender in (published, ours):
            torch.manual_seed(4)
            contender.step(phase)
    networks = ([published.G, published.D], [ours.G, ours.D])
    theirs, own = ([p for network in side for p in network.parameters()] for side in networks)
    moved = [((a - b).detach(), (c - b).detach()) for a, b, c in zip(theirs, before, own, strict=True)]
    largest = max(float(c.abs().max()) for _, c in moved)
    assert largest > 0
    assert max(float((a - c).abs().max()) for a, c in moved) < 1e-3 * largest


def test_stored_bytes_of_the_cifar_preset() -> None:
    """406 MB per image in the published formulation; at most 0.38 of it in ours, 0.26 in bf16."""
    spec = DatasetSpec(32, 32, 3)
    network = Generator(preset("cifar", spec).generator, spec)
    z = torch.randn(1, network.z_dim)
    plain = saved_bytes(network, lambda: baseline.generator(network, z))
    assert plain == pytest.approx(406e6, rel=0.05)
    assert saved_bytes(network, lambda: network(z)) < 0.38 * plain
    assert saved_bytes(network, lambda: network.synthesis(network.mapping(z), dtype=torch.bfloat16)) < 0.26 * plain
