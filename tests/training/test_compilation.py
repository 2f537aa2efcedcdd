"""Compiled networks: one graph each, the same results, and no trace of it in weights, copies and files."""

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.exc import TorchDynamoException

from dnnlib.dataclass_values import ConfigError
from training import compilation
from training.augment.pipe import AugmentPipe
from training.compilation import Compiled, announce, replays, resolve_compile
from training.config import DatasetSpec, DiscriminatorConfig, GeneratorConfig, PerformanceConfig
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)
SPEC = DatasetSpec(16, 16, 3)


@pytest.fixture(autouse=True)
def fresh() -> None:
    for function in (resolve_compile, replays, announce):
        function.cache_clear()
    torch._dynamo.reset()


def test_both_networks_are_one_graph_each() -> None:
    """In bf16; test_graph_memory.py compares float32 with eager training."""
    dtype = torch.bfloat16
    torch.manual_seed(0)
    G = Generator(GeneratorConfig(widths=(32, 32), layers=(1, 1), linformer=True, linformer_from_px=16), SPEC)
    D = Discriminator(DiscriminatorConfig(channel_base=128, channel_max=16), SPEC)
    ws = G.mapping(torch.randn(4, 512)).detach()
    compiled = [torch.compile(net, backend="aot_eager", fullgraph=True, dynamic=False) for net in (G.synthesis, D)]
    results = []
    for synthesis, discriminator in ((G.synthesis, D), compiled):
        images = synthesis(ws, noise_mode="const", dtype=dtype)
        logits = discriminator(images, None, dtype)
        gradients = torch.autograd.grad(logits.sum(), [*D.parameters(), G.synthesis.const])
        results.append([images, logits, *gradients])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02 * theirs.detach().abs().max().item())


def test_augmentation_is_one_graph() -> None:
    augment = AugmentPipe("bgcfnc")
    augment.runs = augment.compiled_runs  # both draw in the same order
    compiled = torch.compile(augment, backend="aot_eager", fullgraph=True, dynamic=False)
    results = []
    for run in (augment, compiled):
        torch.manual_seed(0)
        images = torch.linspace(-1, 1, 4 * 3 * 16 * 16).reshape(4, 3, 16, 16).requires_grad_()
        y = run(images, torch.tensor(0.8))
        (gradient,) = torch.autograd.grad(y.square().sum(), images)
        results.append((y.detach(), gradient))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * theirs.abs().max().item())


def test_without_a_c_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"--compile=1 is not possible here: it needs a C compiler"):
        resolve_compile("1", CPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(compilation.importlib.util, "find_spec", lambda name: object())
    is_used, line = resolve_compile("auto", GPU)
    assert not is_used
    assert line.startswith("The networks run without the compiler: it needs a C compiler: install gcc")
    assert "\n" not in line


@pytest.mark.parametrize("choice", ["auto", "1"])
def test_a_backward_pass_that_does_not_compile_is_found_in_the_forward_pass(monkeypatch, capsys, choice) -> None:
    from functorch.compile import make_boxed_func

    def fail(graph: object, inputs: object) -> object:
        raise RuntimeError("no such kernel")

    real, backend = torch.compile, aot_autograd(fw_compiler=lambda graph, _: make_boxed_func(graph), bw_compiler=fail)
    monkeypatch.setattr(torch, "compile", lambda network, **_: real(network, backend=backend))
    network, x = torch.nn.Linear(2, 3), torch.ones(1, 2)
    run = Compiled(network, PerformanceConfig(compile=choice))
    if choice == "1":
        with pytest.raises(TorchDynamoException):
            run(x)
        return
    run(x).sum().backward()
    assert network.weight.grad is not None and network.weight.grad.eq(1).all()
    assert "Linear runs without the compiler, which failed (no such kernel)" in capsys.readouterr().out


def test_compiled_backward_pass_of_the_generator_scatters_nothing() -> None:
    """A scatter adds by atomics on a GPU: in any order, and inexactly in half precision."""
    graphs: list[str] = []

    def keep(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph.code)
        return graph

    config = GeneratorConfig(widths=(32, 32), layers=(1, 1), linformer=True, linformer_from_px=16)
    generator = Generator(config, SPEC)
    backend = aot_autograd(fw_compiler=keep, bw_compiler=keep)
    run = torch.compile(generator.synthesis, backend=backend, fullgraph=True)
    run(torch.randn(2, generator.num_ws, config.w_dim)).square().mean().backward()
    assert len(graphs) == 2 and "bmm" in graphs[1]
    for graph in graphs:
        for name in ("scatter", "index_put", "upsample_bilinear2d", "index_add"):
            assert name not in graph
