"""Styles to images: the same alone, in batches and compiled."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import sampling.renderer
from sampling.renderer import Renderer
from sampling.styles import Request, labels, latents, styles, styles_in_batches
from training.config import PerformanceConfig
from training.networks.generator import Generator
from training.run.preview import to_uint8

SEEDS = [5, 1, 7, 2, 9]


def test_images_of_seeds_are_those_of_the_generator(generator: Generator) -> None:
    z, c = latents(SEEDS, generator.z_dim, torch.device("cpu")), labels(generator, SEEDS)
    expected = to_uint8(generator(z, c, 0.7, 2, noise_mode="const"))
    made = list(Renderer(generator, batch=5).seed_batches(SEEDS, Request(None, 0.7, 2)))
    assert len(made) == 1
    assert torch.equal(made[0], expected)


def test_without_compiling_nothing_differs(generator: Generator) -> None:
    ws = styles(generator, SEEDS, Request())
    plain = Renderer(generator, batch=2).images(ws, SEEDS)
    chosen = Renderer(generator, batch=2, performance=PerformanceConfig(compile="0", precision="fp32"))
    assert chosen.synthesis is generator.synthesis
    assert torch.equal(chosen.images(ws, SEEDS), plain)


def test_compiled_network_always_gets_a_whole_batch(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def compiled(network: Callable[..., torch.Tensor], *given: Any) -> Callable[..., torch.Tensor]:
        def run(ws: torch.Tensor, *rest: Any) -> torch.Tensor:
            sizes.append(len(ws))
            return network(ws, *rest)

        return run

    ws = styles(generator, SEEDS, Request())
    expected = Renderer(generator, batch=2).images(ws, SEEDS)
    monkeypatch.setattr(sampling.renderer, "forward_pass", compiled)
    made = Renderer(generator, batch=2).images(ws, SEEDS)
    assert sizes == [2, 2, 2]
    assert (made.int() - expected.int()).abs().max() <= 1  # the last one was alone before
    assert torch.equal(made[:4], expected[:4])


@pytest.mark.slow
def test_traced_network_makes_the_same_images(conditional: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    def traced(network: torch.nn.Module, *given: Any) -> Any:
        return torch.compile(network, dynamic=False, backend="aot_eager")

    ws = styles(conditional, SEEDS, Request())
    expected = Renderer(conditional, batch=2).images(ws, SEEDS)
    monkeypatch.setattr(sampling.renderer, "forward_pass", traced)
    made = Renderer(conditional, batch=2).images(ws, SEEDS)
    assert (made.int() - expected.int()).abs().max() <= 1


def test_lower_precision_comes_close(generator: Generator) -> None:
    ws = styles(generator, SEEDS, Request())
    exact = Renderer(generator).images(ws, SEEDS).int()
    rounded = Renderer(generator, performance=PerformanceConfig(precision="bf16")).images(ws, SEEDS).int()
    assert not torch.equal(rounded, exact)
    assert (rounded - exact).abs().float().mean() < 5


def test_random_noise_follows_from_the_seed_alone(generator: Generator) -> None:
    for module in generator.modules():
        if hasattr(module, "noise_strength"):
            module.noise_strength.fill_(0.5)
    renderer = Renderer(generator, "random", batch=4)
    together = torch.cat(list(renderer.seed_batches(SEEDS, Request())))
    alone = next(renderer.seed_batches([7], Request()))
    assert torch.equal(together[2], alone[0])
    ws = styles_in_batches(generator, SEEDS, Request(), 1)
    assert torch.equal(renderer.images(ws, SEEDS), together)
    assert not torch.equal(renderer.images(ws, [0] * 5), together)
