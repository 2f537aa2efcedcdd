"""Small untrained generators: with classes, and grey ones that are not square."""

import dataclasses

import pytest
import torch

from training.config import DatasetSpec, RunConfig
from training.networks.generator import Generator

KINDS = {
    "classes": DatasetSpec(16, 16, 3, 3, ("red", "green", "blue")),
    "grey, not square": DatasetSpec(24, 16, 1),
}


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
