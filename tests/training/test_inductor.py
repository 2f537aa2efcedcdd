"""The compiler that GPU runs use, on small networks: the same results, and nothing compiled twice."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sampling.renderer import Renderer
from training.augment import pipe as augment
from training.augment.pipe import AugmentPipe
from training.compilation import resolve_compile
from training.config import DatasetSpec, DiscriminatorConfig, GeneratorConfig, PerformanceConfig, RunConfig
from training.latents import Latents
from training.losses import build_phases
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.phases import MicroBatch
from training.state import TrainState

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")]

CPU = torch.device("cpu")
SPEC = DatasetSpec(16, 16, 3)
COMPILED = PerformanceConfig(compile="1")


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(autouse=True)
def inductor(monkeypatch: pytest.MonkeyPatch, cache_folder: str) -> Iterator[None]:
    """The compiler without memory, drawing random numbers as PyTorch does."""
    import torch._inductor.config as config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", cache_folder)
    resolve_compile.cache_clear()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with config.patch(fallback_random=True):
        yield


def results(run: Callable[..., Tensor], inputs: list[Tensor], *settings: Any) -> list[Tensor]:
    """What a network returns, and the gradients of a weighted sum of it."""
    torch.manual_seed(0)
    y = run(*inputs[:1], *settings)
    weights = torch.linspace(-1, 2, y.numel()).reshape(y.shape)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), inputs)]


def assert_equal_eager(network: torch.nn.Module, x: Tensor, *settings: Any) -> None:
    inputs = [x.requires_grad_(), *network.parameters()]
    theirs = results(network, inputs, *settings)
    ours = results(torch.compile(network, dynamic=False, fullgraph=True), inputs, *settings)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * max(b.abs().max().item(), 1.0))


@pytest.mark.parametrize("linformer", [False, True])
def test_generator(linformer: bool) -> None:
    torch.manual_seed(0)
    config = GeneratorConfig((32, 16), (1, 1), head_width=8, linformer=linformer, linformer_from_px=16, w_dim=16)
    synthesis = Generator(config, SPEC).synthesis
    for name, parameter in synthesis.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.3)  # so that noise counts
    assert_equal_eager(synthesis, torch.randn(4, config.num_ws, 16), "random")


@pytest.mark.parametrize("architecture", ["orig", "resnet", "skip"])
def test_discriminator(architecture: str) -> None:
    torch.manual_seed(0)
    config = DiscriminatorConfig(architecture, channel_base=128, channel_max=16)
    assert_equal_eager(Discriminator(config, SPEC), torch.randn(4, 3, 16, 16))


@pytest.mark.parametrize("pipe", ["bgc", "bgcf"])
def test_augmentation(pipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same number everywhere: the compiler may draw random ones in another order."""

    def same(distribution: str, count: int, like: Tensor) -> Tensor:
        return torch.full([count], 0.3, dtype=like.dtype, device=like.device)

    monkeypatch.setattr(augment, "random_numbers", same)
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert_equal_eager(AugmentPipe(pipe), images, torch.tensor(0.8))


def micro_batch(state: TrainState, mix: bool = False) -> MicroBatch:
    spec, z = state.spec, torch.randn(4, state.G.z_dim)
    images, c = torch.randn(4, 3, spec.height, spec.width).clamp(-1, 1), torch.zeros(4, 0)
    return MicroBatch(images, c, Latents(z, c, torch.randn_like(z) if mix else None, 2, 0))


def test_phases_compile_each_network_once(tiny_config: RunConfig) -> None:
    """Once for the phase that trains it and once for the one that does not."""
    counters = torch._dynamo.utils.counters
    resolve_compile("1", CPU)  # tries a function of its own
    counters.clear()
    state = TrainState(replace(tiny_config, performance=COMPILED), SPEC, CPU)
    phases = build_phases(state)
    for mix in (False, True, False, True):
        for phase in phases:  # real images lie in memory otherwise than generated ones, and must not for the compiler
            phase.step([micro_batch(state, mix), micro_batch(state, mix)])
    assert state.all_finite()
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 2 * len(("synthesis", "augmentation", "discriminator"))
    assert counters["frames"] == {"total": 6, "ok": 6}


def test_a_last_smaller_batch_is_compiled_with_the_others() -> None:
    generator = Generator(GeneratorConfig((32, 16), (1, 1), head_width=8, w_dim=16), SPEC).eval().requires_grad_(False)
    ws, counters = torch.randn(10, generator.num_ws, 16), torch._dynamo.utils.counters
    resolve_compile("1", CPU)
    counters.clear()
    ours = Renderer(generator, batch=4, performance=COMPILED).images(ws, range(10))
    assert counters["stats"]["unique_graphs"] == 1
    assert (ours.int() - Renderer(generator, batch=4).images(ws, range(10)).int()).abs().max() <= 1


START = """
import json, sys, torch
from training.compilation import forward_pass
from training.config import DiscriminatorConfig, DatasetSpec, PerformanceConfig
from training.networks.discriminator import Discriminator

torch.manual_seed(0)
network = Discriminator(DiscriminatorConfig(channel_base=128, channel_max=16), DatasetSpec(16, 16, 3))
run = forward_pass(network, PerformanceConfig(compile="1"), torch.device("cpu"))
run(torch.randn(4, 3, 16, 16)).sum().backward()
counters = torch._dynamo.utils.counters["inductor"]
print(json.dumps({"hit": counters["fxgraph_cache_hit"], "miss": counters["fxgraph_cache_miss"]}))
"""


def test_a_later_start_finds_what_the_first_compiled(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    environment |= {"STYLEFORMER_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    starts = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", START], env=environment, capture_output=True, text=True, check=True, timeout=300
        )
        line, counts = done.stdout.splitlines()
        assert (
            line
            == f"Compiling the networks: minutes at the first start, less later (cached in {tmp_path / 'compiled'})."
        )
        starts.append(json.loads(counts))
    first, second = starts
    assert first["hit"] == 0 and second["miss"] == 0
    assert second["hit"] == first["miss"] >= 3  # the trial, and the network both ways
