"""Small untrained generators: with classes, and grey ones that are not square."""

import dataclasses
from pathlib import Path

import pytest
import torch

from training.checkpoint.files import SNAPSHOT_FORMAT, header, write
from training.config import DatasetSpec, RunConfig
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator

KINDS = {"classes": DatasetSpec(16, 16, 3, 3, ("red", "green", "blue")), "grey, not square": DatasetSpec(24, 16, 1)}


@pytest.fixture(params=list(KINDS))
def generator(request: pytest.FixtureRequest, tiny_config: RunConfig) -> Generator:
    """Each kind in turn."""
    return make_generator(tiny_config, KINDS[request.param])


@pytest.fixture
def conditional(tiny_config: RunConfig) -> Generator:
    """One with three classes, red, green and blue."""
    return make_generator(tiny_config, KINDS["classes"])


def make_generator(config: RunConfig, spec: DatasetSpec) -> Generator:
    """One whose styles and labels make a difference that can be seen."""
    torch.manual_seed(0)
    generator = Generator(dataclasses.replace(config.generator, layers=(1, 2)), spec).eval().requires_grad_(False)
    generator.mapping_network.w_avg.copy_(torch.randn(generator.w_dim))
    return generator


@pytest.fixture(scope="session")
def explorable(tiny_config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The snapshot of a network with classes and noise."""
    generator = make_generator(tiny_config, KINDS["classes"])
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.3)
    discriminator = Discriminator(tiny_config.discriminator, KINDS["classes"])
    networks = {"G": generator.state_dict(), "G_ema": generator.state_dict(), "D": discriminator.state_dict()}
    path = tmp_path_factory.mktemp("run") / "network-snapshot-000002.pkl"
    write(path, header(SNAPSHOT_FORMAT, tiny_config, KINDS["classes"], 0) | networks)
    return path
