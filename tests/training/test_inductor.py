"""The compiler that GPU runs use, on small networks: the same results, few kernels, and nothing compiled twice."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import CPU, micro_batch

from sampling.renderer import Renderer
from training.compilation import resolve_compile
from training.config import DatasetSpec, GeneratorConfig, PerformanceConfig, RunConfig
from training.losses import build_phases
from training.networks.generator import Generator
from training.presets import preset
from training.state import TrainState

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")]

SPEC = DatasetSpec(16, 16, 3)
COMPILED = PerformanceConfig(compile="1")
MAX_KERNELS = 300  # of G main; 21 of them are layer normalisation, which takes three on a CPU and one on a GPU


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(autouse=True)
def inductor(monkeypatch: pytest.MonkeyPatch, cache_folder: str) -> None:
    """The compiler without memory."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", cache_folder)
    resolve_compile.cache_clear()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def test_phases_compile_each_network_once(tiny_config: RunConfig) -> None:
    """Once for the phase that trains it and once for the one that does not."""
    counters = torch._dynamo.utils.counters
    resolve_compile("1", CPU)  # tries a function of its own
    counters.clear()
    state = TrainState(replace(tiny_config, performance=COMPILED), SPEC, CPU)
    phases = build_phases(state)
    for mix in (False, True, False, True):
        for phase in phases:  # real images lie in memory otherwise than generated ones, and must not for the compiler
            phase.step([micro_batch(mix=mix), micro_batch(mix=mix)])
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


def narrow_cifar() -> RunConfig:
    """The layers of the preset, an eighth as wide: how many kernels there are does not depend on that."""
    config = preset("cifar", DatasetSpec(32, 32, 3))
    generator = replace(config.generator, widths=tuple(width // 8 for width in config.generator.widths))
    discriminator = replace(config.discriminator, channel_base=4096, channel_max=64, mbstd_group=4)
    return replace(config, generator=generator, discriminator=discriminator, performance=COMPILED)


def test_kernels_of_the_generator_phase() -> None:
    from torch._inductor import metrics

    resolve_compile("1", CPU)
    state = TrainState(narrow_cifar(), DatasetSpec(32, 32, 3), CPU)
    phase = build_phases(state)[0]
    assert phase.name == "G_main"
    metrics.reset()
    phase.step([micro_batch(z_dim=state.G.z_dim, size=32)])
    assert 0 < metrics.generated_kernel_count <= MAX_KERNELS


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
        assert f"(cached in {tmp_path / 'compiled-2'})" in line
        starts.append(json.loads(counts))
    first, second = starts
    assert first["hit"] == 0 and second["miss"] == 0
    assert second["hit"] == first["miss"] >= 3  # the trial, and the network both ways
